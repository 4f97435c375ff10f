//! Medians and the shape of a printed figure.

use std::time::Duration;

/// The value in the middle; 0 for no values.
pub(crate) fn median(values: &mut [f64]) -> f64 {
    percentile(values, 50)
}

/// The value below which `percent` of the values are.
pub(crate) fn percentile(values: &mut [f64], percent: usize) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len().saturating_sub(1) * percent / 100).copied().unwrap_or(0.0)
}

/// How many a second.
pub(crate) fn rate(count: u32, took: Duration) -> f64 {
    f64::from(count) / took.as_secs_f64()
}

/// One figure: what, how much, in what unit.
pub(crate) fn figure(what: &str, value: f64, unit: &str) {
    let digits = if value < 10.0 { 2 } else { 0 };
    println!("  {what:<52} {value:>12.digits$} {unit}");
}

/// The heading of a scenario.
pub(crate) fn heading(text: &str) {
    println!("\n{text}");
}
