//! Keeps web pages of other sites away from a master on loopback.
//!
//! A browser sends a page's requests to `localhost` too, and a name that an attacker owns can be
//! made to point there (DNS rebinding). Both show in the headers: `Origin` names another site, or
//! `Host` names what is neither an address nor a name of this master.

use std::net::IpAddr;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::App;
use super::errors::Failure;
use super::extract::is_json;

/// Lets a request pass, or answers it with why not.
pub(super) async fn guard(State(app): State<App>, request: Request, next: Next) -> Response {
    match check(request.method(), request.headers(), app.info.host_names.as_deref()) {
        Ok(()) => next.run(request).await,
        Err(failure) => failure.into_response(),
    }
}

fn check(method: &Method, headers: &HeaderMap, names: Option<&[String]>) -> Result<(), Failure> {
    // A client that is not a browser may leave both headers out.
    let host = text_of(headers, &header::HOST)?;
    if let (Some(host), Some(names)) = (host, names)
        && !is_ours(host, names)
    {
        let shown = host.escape_debug();
        return Err(Failure::invalid(format!("this master is not called '{shown}'"))
            .hint("name it by its address or as localhost"));
    }
    if let Some(origin) = text_of(headers, &header::ORIGIN)? {
        let site = origin.split_once("://").map_or(origin, |(_, site)| site);
        if host.is_none_or(|host| !host.eq_ignore_ascii_case(site)) {
            let shown = origin.escape_debug();
            let message = format!("a page of '{shown}' may not speak to this master");
            return Err(
                Failure::invalid(message).hint("only pages that this master serves itself may")
            );
        }
    }
    // A form of another site cannot send this type without the browser asking first.
    let kind = headers.get(header::CONTENT_TYPE);
    if *method == Method::POST && kind.is_some_and(|kind| !is_json(kind)) {
        return Err(Failure::invalid("a POST has Content-Type application/json, or no body"));
    }
    Ok(())
}

fn text_of<'h>(
    headers: &'h HeaderMap,
    name: &header::HeaderName,
) -> Result<Option<&'h str>, Failure> {
    let value = headers.get(name).map(|value| value.to_str()).transpose();
    value.map_err(|_| Failure::invalid(format!("the header {name} is not text")))
}

/// Whether `host`, with or without a port, is an address, `localhost`, or one of `names`.
fn is_ours(host: &str, names: &[String]) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or(rest),
        None => host.rsplit_once(':').map_or(host, |(name, _)| name),
    };
    name.parse::<IpAddr>().is_ok()
        || name.eq_ignore_ascii_case("localhost")
        || names.iter().any(|ours| ours.eq_ignore_ascii_case(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_headers(pairs: &[(&str, &str)], passes: bool) {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            let name: header::HeaderName = name.parse().unwrap();
            headers.insert(name, value.parse().unwrap());
        }
        let names = ["master.lan".to_owned()];
        assert_eq!(check(&Method::POST, &headers, Some(&names)).is_ok(), passes, "{pairs:?}");
    }

    #[test]
    fn only_names_of_this_master_are_answered() {
        for host in ["127.0.0.1:8080", "[::1]:8080", "localhost", "LOCALHOST:1", "Master.lan:8080"]
        {
            check_headers(&[("host", host)], true);
        }
        for host in ["evil.example", "localhost.evil.example:8080", "", "[evil]:1"] {
            check_headers(&[("host", host)], false);
        }
        check_headers(&[], true);
    }

    #[test]
    fn pages_of_other_sites_are_refused() {
        let host = ("host", "localhost:8080");
        check_headers(&[host, ("origin", "http://localhost:8080")], true);
        for origin in ["http://evil.example", "null", "http://localhost:3000"] {
            check_headers(&[host, ("origin", origin)], false);
        }
    }

    #[test]
    fn a_form_is_not_json() {
        check_headers(&[("content-type", "application/json; charset=utf-8")], true);
        for kind in ["text/plain", "application/x-www-form-urlencoded", "application/jsonp"] {
            check_headers(&[("content-type", kind)], false);
        }
    }
}
