//! A registry on loopback that answers and has nothing: an image that does not exist is not the
//! same as a registry that cannot be reached.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};

/// Answers until the test program ends; `host:port`, as a reference has it.
pub fn empty_registry() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let address = listener.local_addr().expect("it is bound").to_string();
    std::thread::spawn(move || {
        for call in listener.incoming().flatten() {
            // Who hangs up needs no answer.
            drop(answer(&call));
        }
    });
    address
}

fn answer(mut call: &TcpStream) -> std::io::Result<()> {
    let mut lines = BufReader::new(call).lines();
    let request = lines.next().transpose()?.unwrap_or_default();
    while lines.next().transpose()?.is_some_and(|line| !line.is_empty()) {}
    let (status, body) = if request.contains(" /v2/ ") {
        ("200 OK", "{}")
    } else {
        let errors = r#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}"#;
        ("404 Not Found", errors)
    };
    let length = body.len();
    write!(
        call,
        "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\
         Docker-Distribution-Api-Version: registry/2.0\r\nConnection: close\r\n\r\n{body}"
    )
}
