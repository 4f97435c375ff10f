//! A set of array positions kept as ranges: a million queued tasks cost one entry.

use std::collections::BTreeMap;

/// Disjoint, never touching, inclusive ranges of positions.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Ranges {
    /// First position → last position.
    parts: BTreeMap<u32, u32>,
    count: u64,
}

impl Ranges {
    /// The positions `first..=last`; nothing when `first > last`.
    pub fn from_span(first: u32, last: u32) -> Self {
        let mut ranges = Self::default();
        if first <= last {
            ranges.parts.insert(first, last);
            ranges.count = u64::from(last - first) + 1;
        }
        ranges
    }

    /// How many positions are in the set.
    pub const fn count(&self) -> u64 {
        self.count
    }

    /// Whether no position is left.
    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The lowest position.
    pub fn first(&self) -> Option<u32> {
        self.parts.first_key_value().map(|(first, _)| *first)
    }

    /// Whether the position is in the set.
    pub fn contains(&self, position: u32) -> bool {
        self.parts.range(..=position).next_back().is_some_and(|(_, last)| *last >= position)
    }

    /// Takes one position out; false when it was not there.
    pub fn remove(&mut self, position: u32) -> bool {
        let Some((&first, &last)) = self.parts.range(..=position).next_back() else {
            return false;
        };
        if last < position {
            return false;
        }
        self.parts.remove(&first);
        if first < position {
            self.parts.insert(first, position - 1);
        }
        if position < last {
            self.parts.insert(position + 1, last);
        }
        self.count -= 1;
        true
    }

    /// Takes every position of `first..=last` out.
    pub fn remove_span(&mut self, first: u32, last: u32) {
        if first > last {
            return;
        }
        let cut: Vec<(u32, u32)> = self
            .parts
            .range(..=last)
            .rev()
            .map(|(low, high)| (*low, *high))
            .take_while(|(_, high)| *high >= first)
            .collect();
        for (low, high) in cut {
            self.parts.remove(&low);
            self.count -= u64::from(high - low) + 1;
            if low < first {
                self.insert_span(low, first - 1);
            }
            if high > last {
                self.insert_span(last + 1, high);
            }
        }
    }

    fn insert_span(&mut self, low: u32, high: u32) {
        self.parts.insert(low, high);
        self.count += u64::from(high - low) + 1;
    }

    /// The ranges in order, as (first, last), both inclusive.
    pub fn spans(&self) -> impl Iterator<Item = (u32, u32)> + '_ {
        self.parts.iter().map(|(first, last)| (*first, *last))
    }

    /// The positions in order.
    pub fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        self.spans().flat_map(|(first, last)| first..=last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_removed_position_splits_its_range() {
        let mut ranges = Ranges::from_span(1, 5);
        assert!(ranges.remove(3));
        assert!(!ranges.remove(3));
        assert!(ranges.remove(1));
        assert_eq!(ranges.spans().collect::<Vec<_>>(), [(2, 2), (4, 5)]);
        assert_eq!(ranges.count(), 3);
        assert!(!ranges.contains(1) && ranges.contains(5) && !ranges.contains(6));
    }

    #[test]
    fn a_removed_span_cuts_what_it_meets() {
        let mut ranges = Ranges::from_span(1, 10);
        ranges.remove(5);
        ranges.remove_span(4, 7);
        assert_eq!(ranges.spans().collect::<Vec<_>>(), [(1, 3), (8, 10)]);
        assert_eq!(ranges.count(), 6);
        ranges.remove_span(2, 2);
        ranges.remove_span(9, 100);
        assert_eq!(ranges.iter().collect::<Vec<_>>(), [1, 3, 8]);
        ranges.remove_span(0, u32::MAX);
        assert!(ranges.is_empty());
        ranges.remove_span(3, 2);
    }

    #[test]
    fn the_largest_position_can_be_taken() {
        let mut ranges = Ranges::from_span(u32::MAX - 1, u32::MAX);
        assert!(ranges.remove(u32::MAX) && ranges.remove(u32::MAX - 1));
        assert!(ranges.is_empty() && ranges.first().is_none());
    }
}
