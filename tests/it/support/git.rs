//! Git server implemented by hand in a test.

use std::io;

use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;

/// Reads a request of protocol v2, which ends with a flush packet. Returns `None` if the client disconnects first.
pub(crate) async fn request(stream: &mut TcpStream) -> io::Result<Option<Vec<u8>>> {
    let mut request = Vec::new();
    let mut buffer = [0; 4096];
    while !request.ends_with(b"0000") {
        let read = stream.read(&mut buffer).await?;
        if read == 0 {
            return Ok(None);
        }
        request.extend_from_slice(&buffer[..read]);
    }
    Ok(Some(request))
}
