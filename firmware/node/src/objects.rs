//! Commands for the tracker, which are checked when they arrive and executed in the next frame.

use loftup_bundle::Size;
use loftup_wire::{
    command::{Refusal, Seed},
    mask,
    message::{Point, Rect},
};

use crate::output::{self, Name};

/// Maximum number of waiting commands.
const MAX_PENDING: usize = 16;
/// Maximum number of pixels of a mask in a command.
const MAX_MASK_PIXELS: usize = 1 << 20;

/// A command for the tracker.
#[derive(Debug, Clone, PartialEq)]
pub enum ObjectCommand {
    /// Starts or restarts an object in the next frame.
    Start {
        /// Its number.
        object: u8,
        /// Its name.
        name: Name,
        /// Its position.
        seed: ObjectSeed,
    },
    /// Stops an object.
    Stop {
        /// Its number.
        object: u8,
    },
    /// Changes the name of an object.
    Rename {
        /// Its number.
        object: u8,
        /// Its name.
        name: Name,
    },
}

/// The position of an object, in pixels of the camera image.
#[derive(Debug, Clone, PartialEq)]
pub enum ObjectSeed {
    /// Everything inside a rectangle.
    Box(Rect),
    /// The connected pixels around a pixel that are similar to it.
    Point(Point),
    /// The pixels of a mask of the whole image, at any resolution.
    Mask {
        /// Its size.
        size: Size,
        /// Its code; see [`mask`].
        runs: Vec<u8>,
    },
}

impl ObjectSeed {
    /// Checks the seed of a command for images of size `camera`, if known.
    ///
    /// # Errors
    /// [`Refusal::OutOfPicture`], [`Refusal::Mask`].
    pub fn check(seed: &Seed<'_>, camera: Option<Size>) -> Result<Self, Refusal> {
        match *seed {
            Seed::Box(rect) if !output::is_inside(rect, camera) => Err(Refusal::OutOfPicture),
            Seed::Point(point) if !output::contains(point, camera) => Err(Refusal::OutOfPicture),
            Seed::Box(rect) => Ok(Self::Box(rect)),
            Seed::Point(point) => Ok(Self::Point(point)),
            Seed::Mask {
                width,
                height,
                runs,
            } => {
                let size = Size {
                    width: width.into(),
                    height: height.into(),
                };
                let pixels = mask::check(&runs, width, height);
                if size.area() > MAX_MASK_PIXELS || !pixels.is_ok_and(|n| n > 0) {
                    return Err(Refusal::Mask);
                }
                let runs = runs.to_vec();
                Ok(Self::Mask { size, runs })
            }
        }
    }
}

/// The waiting commands, and the numbers of the objects that exist after they are executed.
#[derive(Debug)]
pub struct ObjectQueue {
    max_objects: u8,
    known: [bool; 256],
    pending: Vec<ObjectCommand>,
}

impl ObjectQueue {
    /// Creates a queue for objects 1 to `max_objects`, which is 0 without a tracker.
    pub fn new(max_objects: u8) -> Self {
        Self {
            max_objects,
            known: [false; 256],
            pending: Vec::with_capacity(MAX_PENDING),
        }
    }

    /// Starts an object in the next frame.
    ///
    /// # Errors
    /// [`Refusal::NoSuchObject`] for an invalid number; [`Refusal::Busy`] if too many commands are
    /// waiting; errors of [`ObjectSeed::check`].
    pub fn start(
        &mut self,
        object: u8,
        name: &str,
        seed: &Seed<'_>,
        camera: Option<Size>,
    ) -> Result<(), Refusal> {
        if object == 0 || object > self.max_objects {
            return Err(Refusal::NoSuchObject);
        }
        let seed = ObjectSeed::check(seed, camera)?;
        let name = named(name);
        self.push(ObjectCommand::Start { object, name, seed })?;
        self.known[usize::from(object)] = true;
        Ok(())
    }

    /// Stops an object. It is not an error if it does not exist, so that the command can be repeated.
    ///
    /// # Errors
    /// [`Refusal::NoSuchObject`] for an invalid number; [`Refusal::Busy`].
    pub fn stop(&mut self, object: u8) -> Result<(), Refusal> {
        if object == 0 || object > self.max_objects {
            return Err(Refusal::NoSuchObject);
        }
        if self.known[usize::from(object)] {
            self.push(ObjectCommand::Stop { object })?;
            self.known[usize::from(object)] = false;
        }
        Ok(())
    }

    /// Changes the name of an object.
    ///
    /// # Errors
    /// [`Refusal::NoSuchObject`]; [`Refusal::Busy`].
    pub fn rename(&mut self, object: u8, name: &str) -> Result<(), Refusal> {
        if !self.known[usize::from(object)] {
            return Err(Refusal::NoSuchObject);
        }
        let name = named(name);
        self.push(ObjectCommand::Rename { object, name })
    }

    fn push(&mut self, command: ObjectCommand) -> Result<(), Refusal> {
        if self.pending.len() == MAX_PENDING {
            return Err(Refusal::Busy);
        }
        self.pending.push(command);
        Ok(())
    }

    /// Whether there are objects or commands, so that the tracker needs the next frame.
    pub fn needs_frame(&self) -> bool {
        !self.pending.is_empty() || self.known.contains(&true)
    }

    /// Moves the commands to `into`, which is cleared.
    pub fn take(&mut self, into: &mut Vec<ObjectCommand>) {
        into.clear();
        into.append(&mut self.pending);
    }

    /// Removes an object that could not be started.
    pub fn forget(&mut self, object: u8) {
        self.known[usize::from(object)] = false;
    }
}

/// Returns a name of at most 32 bytes, truncated at a character boundary.
pub fn named(name: &str) -> Name {
    let end = (0..=name.len().min(32))
        .rev()
        .find(|i| name.is_char_boundary(*i));
    Name::try_from(&name[..end.unwrap_or(0)]).unwrap_or_default()
}

/// Converts the seed of an object in the configuration to the seed of a command.
pub fn seed_of(region: Option<[u16; 4]>, point: Option<[u16; 2]>) -> Option<Seed<'static>> {
    match (region, point) {
        (Some([x, y, width, height]), None) => Some(Seed::Box(Rect {
            x,
            y,
            width,
            height,
        })),
        (None, Some([x, y])) => Some(Seed::Point(Point { x, y })),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use loftup_wire::Bytes;

    use super::*;

    const CAMERA: Option<Size> = Some(Size {
        width: 64,
        height: 48,
    });

    fn square(x: u16) -> Seed<'static> {
        Seed::Box(Rect {
            x,
            y: 0,
            width: 8,
            height: 8,
        })
    }

    fn mask(width: u16, height: u16, runs: &[u8]) -> Seed<'_> {
        Seed::Mask {
            width,
            height,
            runs: Bytes::new(runs).unwrap(),
        }
    }

    #[test]
    fn commands_are_checked_when_they_arrive() {
        let mut queue = ObjectQueue::new(3);
        let start = |queue: &mut ObjectQueue, object, seed: &Seed<'_>| {
            queue.start(object, "mug", seed, CAMERA)
        };
        let point = |x| Seed::Point(Point { x, y: 47 });
        for (object, seed, expected) in [
            (0, square(0), Err(Refusal::NoSuchObject)),
            (4, square(0), Err(Refusal::NoSuchObject)),
            (1, square(57), Err(Refusal::OutOfPicture)),
            (1, square(56), Ok(())),
            (2, point(64), Err(Refusal::OutOfPicture)),
            (2, point(63), Ok(())),
            (3, mask(8, 4, &[3, 30]), Err(Refusal::Mask)),
            (3, mask(8, 4, &[3]), Err(Refusal::Mask)),
            (3, mask(8, 4, &[3, 0x80]), Err(Refusal::Mask)),
            (3, mask(0, 4, &[]), Err(Refusal::Mask)),
            (3, mask(1025, 1024, &[0, 5]), Err(Refusal::Mask)),
            (3, mask(1024, 1024, &[0, 5]), Ok(())),
        ] {
            assert_eq!(
                start(&mut queue, object, &seed),
                expected,
                "{object} {seed:?}"
            );
        }
        let mut taken = Vec::new();
        queue.take(&mut taken);
        assert_eq!(taken.len(), 3);
        assert!(queue.needs_frame(), "there are objects");
        for object in 1..=3 {
            assert_eq!(queue.stop(object), Ok(()));
            assert_eq!(queue.stop(object), Ok(()), "a repeated command");
        }
        assert_eq!(queue.rename(1, "cup"), Err(Refusal::NoSuchObject));
        queue.take(&mut taken);
        assert_eq!(taken.len(), 3, "a repeated stop is not queued");
        assert!(!queue.needs_frame());
    }

    #[test]
    fn the_queue_is_bounded() {
        let mut queue = ObjectQueue::new(1);
        for _ in 0..MAX_PENDING {
            assert_eq!(queue.start(1, "", &square(0), CAMERA), Ok(()));
        }
        assert_eq!(queue.start(1, "", &square(0), CAMERA), Err(Refusal::Busy));
        assert_eq!(queue.stop(1), Err(Refusal::Busy));
        queue.take(&mut Vec::new());
        assert_eq!(queue.stop(1), Ok(()), "it is still there");
    }

    #[test]
    fn long_names_are_cut_between_characters() {
        assert_eq!(named("mug"), "mug");
        assert_eq!(named(&"ß".repeat(20)).as_str(), "ß".repeat(16));
        assert_eq!(named(&format!("x{}", "ß".repeat(20))).len(), 31);
    }
}
