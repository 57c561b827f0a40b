//! The handshake: both sides exchange a [`Hello`].

use crate::bounded::Text;
use crate::error::Incompatible;
use crate::message::{Hello, Role, check_versions};
use crate::{MAX_BODY, MIN_BODY, PROTOCOL, SCHEMA_HASH};

/// One side's state of the handshake.
///
/// Send [`hello`](Self::hello) at the start, and again about once a second until
/// [`is_open`](Self::is_open). Pass every [`Hello`] received to
/// [`receive`](Self::receive) and send what it returns. Ignore all other
/// messages until the handshake is complete.
#[derive(Debug, Clone)]
pub struct Handshake<'n> {
    role: Role,
    name: Text<'n, 32>,
    other: Option<Result<Role, Incompatible>>,
    own_max_body: u16,
    max_body: usize,
}

impl<'n> Handshake<'n> {
    /// A handshake that has not started.
    #[must_use]
    pub const fn new(role: Role, name: Text<'n, 32>) -> Self {
        Handshake {
            role,
            name,
            other: None,
            own_max_body: MAX_BODY as u16,
            max_body: MAX_BODY,
        }
    }

    /// Sets the largest body that this side accepts, at least [`MIN_BODY`]. Needed
    /// if its decoder is smaller than [`MAX_PACKET`](crate::MAX_PACKET).
    #[must_use]
    pub const fn with_max_body(mut self, bytes: usize) -> Self {
        self.own_max_body = clamp(bytes) as u16;
        self
    }

    /// The hello that opens a connection.
    #[must_use]
    pub const fn hello(&self) -> Hello<'n> {
        Hello {
            protocol: PROTOCOL,
            schema: SCHEMA_HASH,
            role: self.role,
            answer: true,
            max_body: self.own_max_body,
            name: self.name,
        }
    }

    /// Processes the other side's hello and returns the reply, if it requests one.
    /// An incompatible side gets a reply as well, so that it can report why it is
    /// ignored.
    #[must_use]
    pub fn receive(&mut self, hello: &Hello<'_>) -> Option<Hello<'n>> {
        self.other = Some(check_versions(hello.protocol, hello.schema).map(|()| hello.role));
        self.max_body = clamp(usize::from(hello.max_body));
        hello.answer.then(|| Hello {
            answer: false,
            ..self.hello()
        })
    }

    /// Whether a hello has arrived from the other side and its version matches.
    #[must_use]
    pub const fn is_open(&self) -> bool {
        matches!(self.other, Some(Ok(_)))
    }

    /// The role of the other side, if its hello has arrived.
    ///
    /// # Errors
    /// [`Incompatible`] if its version differs.
    pub const fn other(&self) -> Result<Option<Role>, Incompatible> {
        match self.other {
            None => Ok(None),
            Some(Ok(role)) => Ok(Some(role)),
            Some(Err(why)) => Err(why),
        }
    }

    /// The largest body that the other side accepts; [`MAX_BODY`] until its hello
    /// arrives. Pass it to
    /// [`MapWriter`](crate::runs::MapWriter) and
    /// [`FeatureWriter`](crate::features::FeatureWriter).
    #[must_use]
    pub const fn max_body(&self) -> usize {
        self.max_body
    }

    /// Starts over after the connection was lost.
    pub const fn reset(&mut self) {
        self.other = None;
        self.max_body = MAX_BODY;
    }
}

const fn clamp(bytes: usize) -> usize {
    if bytes < MIN_BODY {
        MIN_BODY
    } else if bytes > MAX_BODY {
        MAX_BODY
    } else {
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn side(role: Role) -> Handshake<'static> {
        Handshake::new(role, Text::new("test").unwrap())
    }

    #[test]
    fn one_hello_and_its_answer_open_both_sides() {
        let (mut node, mut controller) = (side(Role::Node), side(Role::Controller));
        let answer = controller.receive(&node.hello()).expect("a reply");
        assert!(controller.is_open());
        assert!(!node.is_open());
        assert_eq!(node.receive(&answer), None, "no further reply");
        assert_eq!(node.other(), Ok(Some(Role::Controller)));
    }

    #[test]
    fn both_greeting_at_once_ends_too() {
        let (mut node, mut controller) = (side(Role::Node), side(Role::Controller));
        let first = node.receive(&controller.hello()).expect("a reply");
        let second = controller.receive(&node.hello()).expect("a reply");
        assert_eq!(controller.receive(&first), None);
        assert_eq!(node.receive(&second), None);
        assert!(node.is_open() && controller.is_open());
    }

    #[test]
    fn a_small_side_says_how_much_it_takes_within_the_bounds() {
        for (says, counts) in [(0, MIN_BODY), (200, 200), (9_999, MAX_BODY)] {
            let small = side(Role::Controller).with_max_body(says);
            let mut node = side(Role::Node);
            assert_eq!(node.max_body(), MAX_BODY);
            let _ = node.receive(&small.hello());
            assert_eq!(node.max_body(), counts);
            node.reset();
            assert_eq!(node.max_body(), MAX_BODY);
        }
    }

    #[test]
    fn another_version_is_told_so_and_not_listened_to() {
        let mut node = side(Role::Node);
        let mut hello = side(Role::Controller).hello();
        hello.schema ^= 1;
        assert!(node.receive(&hello).is_some());
        assert!(!node.is_open());
        assert!(matches!(node.other(), Err(Incompatible::Schema { .. })));
        hello.protocol = 99;
        let _ = node.receive(&hello);
        assert_eq!(
            node.other(),
            Err(Incompatible::Protocol {
                ours: PROTOCOL,
                theirs: 99
            })
        );
    }
}
