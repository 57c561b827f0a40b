//! What systemd is told: `sd_notify(3)` as one datagram for each message.

use std::{
    io,
    os::unix::net::{SocketAddr, UnixDatagram},
    path::Path,
    time::Duration,
};

/// A socket to the service manager; does nothing where there is none.
#[derive(Debug, Default)]
pub struct Notifier {
    socket: Option<UnixDatagram>,
    watchdog: Option<Duration>,
}

impl Notifier {
    /// From `NOTIFY_SOCKET` and `WATCHDOG_USEC`, as systemd sets them.
    pub fn from_environment() -> Self {
        let micros = std::env::var("WATCHDOG_USEC")
            .ok()
            .and_then(|t| t.parse().ok());
        let watchdog = micros.filter(|us| *us > 0).map(Duration::from_micros);
        let Some(path) = std::env::var_os("NOTIFY_SOCKET").filter(|p| !p.is_empty()) else {
            return Self::default();
        };
        Self::to(Path::new(&path), watchdog).unwrap_or_else(|e| {
            log::warn!(
                "NOTIFY_SOCKET {}: {e}: systemd is told nothing",
                path.display()
            );
            Self::default()
        })
    }

    /// To a socket; a path that begins with `@` is an abstract one.
    ///
    /// # Errors
    /// Where there is no such socket.
    pub fn to(path: &Path, watchdog: Option<Duration>) -> io::Result<Self> {
        let socket = UnixDatagram::unbound()?;
        match path.to_str().and_then(|p| p.strip_prefix('@')) {
            Some(name) => {
                use std::os::linux::net::SocketAddrExt;
                socket.connect_addr(&SocketAddr::from_abstract_name(name)?)?;
            }
            None => socket.connect(path)?,
        }
        // A service manager that does not read must not stall the node.
        socket.set_nonblocking(true)?;
        Ok(Self {
            socket: Some(socket),
            watchdog,
        })
    }

    /// How often systemd wants to hear of the node: half of its patience.
    pub fn period(&self) -> Option<Duration> {
        self.watchdog.map(|limit| limit / 2)
    }

    /// Says something, such as `READY=1`.
    pub fn say(&self, message: &str) {
        if let Some(socket) = &self.socket
            && let Err(e) = socket.send(message.as_bytes())
        {
            log::debug!("systemd was not told {message:?}: {e}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_arrive_at_a_socket_of_either_kind() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let plain = UnixDatagram::bind(&path).unwrap();
        let name = format!("loftup-test-{}", std::process::id());
        use std::os::linux::net::SocketAddrExt;
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let hidden = UnixDatagram::bind_addr(&address).unwrap();
        let mut buffer = [0; 64];
        for (socket, path) in [(plain, path), (hidden, format!("@{name}").into())] {
            let notifier = Notifier::to(&path, Some(Duration::from_secs(4))).unwrap();
            assert_eq!(notifier.period(), Some(Duration::from_secs(2)));
            notifier.say("READY=1");
            let n = socket.recv(&mut buffer).unwrap();
            assert_eq!(&buffer[..n], b"READY=1");
        }
        Notifier::default().say("READY=1");
    }
}
