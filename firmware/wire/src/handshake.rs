//! The greeting.

use crate::bounded::Text;
use crate::message::{Hello, Role};
use crate::{MAX_BODY, MIN_BODY, PROTOCOL, SCHEMA_HASH};

/// The other side speaks another version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Incompatible {
    /// Another protocol.
    #[error("the other side speaks protocol {theirs}, this one {ours}: update the older")]
    Protocol {
        /// This side's.
        ours: u16,
        /// The other side's.
        theirs: u16,
    },
    /// Another set of messages.
    #[error(
        "the other side's messages are {theirs:#018x}, this one's {ours:#018x}: build both from one version"
    )]
    Schema {
        /// This side's.
        ours: u64,
        /// The other side's.
        theirs: u64,
    },
}

impl Incompatible {
    /// Compares another side's versions with this one's.
    pub(crate) const fn check(protocol: u16, schema: u64) -> Result<(), Self> {
        if protocol != PROTOCOL {
            return Err(Incompatible::Protocol {
                ours: PROTOCOL,
                theirs: protocol,
            });
        }
        if schema != SCHEMA_HASH {
            return Err(Incompatible::Schema {
                ours: SCHEMA_HASH,
                theirs: schema,
            });
        }
        Ok(())
    }
}

/// One side's view of the greeting.
///
/// Say [`greeting`](Self::greeting) at the start, and again every second or so
/// until [`is_open`](Self::is_open). Hand every [`Hello`] that comes to
/// [`receive`](Self::receive) and send what it gives back. Take no other
/// message for what it says until the greeting has been exchanged.
#[derive(Debug, Clone)]
pub struct Handshake<'n> {
    role: Role,
    name: Text<'n, 32>,
    other: Option<Result<Role, Incompatible>>,
    own_max_body: u16,
    max_body: usize,
}

impl<'n> Handshake<'n> {
    /// Nobody greeted yet.
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

    /// For a side whose decoder is smaller than [`MAX_PACKET`](crate::MAX_PACKET):
    /// the largest body it takes, [`MIN_BODY`] at least.
    #[must_use]
    pub const fn with_max_body(mut self, bytes: usize) -> Self {
        self.own_max_body = clamp(bytes) as u16;
        self
    }

    /// The hello that opens a conversation.
    #[must_use]
    pub const fn greeting(&self) -> Hello<'n> {
        Hello {
            protocol: PROTOCOL,
            schema: SCHEMA_HASH,
            role: self.role,
            answer: true,
            max_body: self.own_max_body,
            name: self.name,
        }
    }

    /// Takes the other side's hello. Gives the answer, where one is due. An
    /// incompatible side is answered too, so that it learns why it is ignored.
    #[must_use]
    pub fn receive(&mut self, hello: &Hello<'_>) -> Option<Hello<'n>> {
        self.other = Some(Incompatible::check(hello.protocol, hello.schema).map(|()| hello.role));
        self.max_body = clamp(usize::from(hello.max_body));
        hello.answer.then(|| Hello {
            answer: false,
            ..self.greeting()
        })
    }

    /// Whether the other side has greeted and speaks the same version.
    #[must_use]
    pub const fn is_open(&self) -> bool {
        matches!(self.other, Some(Ok(_)))
    }

    /// What the other side is, where it has greeted.
    ///
    /// # Errors
    /// [`Incompatible`] where it speaks another version.
    pub const fn other(&self) -> Result<Option<Role>, Incompatible> {
        match self.other {
            None => Ok(None),
            Some(Ok(role)) => Ok(Some(role)),
            Some(Err(why)) => Err(why),
        }
    }

    /// Largest body that the other side takes, as far as it has said. Give it to
    /// [`BandWriter`](crate::runs::BandWriter) and
    /// [`FeatureWriter`](crate::features::FeatureWriter).
    #[must_use]
    pub const fn max_body(&self) -> usize {
        self.max_body
    }

    /// Forgets the other side: the line was cut.
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
        let answer = controller.receive(&node.greeting()).expect("an answer");
        assert!(controller.is_open());
        assert!(!node.is_open());
        assert_eq!(node.receive(&answer), None, "greetings end");
        assert_eq!(node.other(), Ok(Some(Role::Controller)));
    }

    #[test]
    fn both_greeting_at_once_ends_too() {
        let (mut node, mut controller) = (side(Role::Node), side(Role::Controller));
        let first = node.receive(&controller.greeting()).expect("an answer");
        let second = controller.receive(&node.greeting()).expect("an answer");
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
            let _ = node.receive(&small.greeting());
            assert_eq!(node.max_body(), counts);
            node.reset();
            assert_eq!(node.max_body(), MAX_BODY);
        }
    }

    #[test]
    fn another_version_is_told_so_and_not_listened_to() {
        let mut node = side(Role::Node);
        let mut hello = side(Role::Controller).greeting();
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
