//! A controller that brakes for what the node sees: counts the pixels of a
//! class in a rectangle, keeps the features of three points, shows the node's
//! health on a light. Everything below `main` is `no_std` and uses the traits
//! of embedded-hal and embedded-io alone, so that it moves to a board by putting
//! that board's serial port and pins in place of the cable in memory.
//!
//! On a computer it shows itself: `cargo run -p loftup-board --example
//! mcu_receiver`. `tools/build_thumb.sh` builds it for a microcontroller, and runs
//! it on an emulated one, in 64 kB of memory: it must show the same there.

#![cfg_attr(target_os = "none", no_std, no_main)]
#![forbid(unsafe_code)]

mod cable;
mod node;
mod receiver;

use core::convert::Infallible;

use embedded_hal::digital::{ErrorType, OutputPin};
use loftup_board::{MonoLamp, Polarity};
use loftup_wire::faults::Faults;
use loftup_wire::message::Rect;
use loftup_wire::{Counters, Text};

use cable::Cable;
use node::Node;
use receiver::{Event, Receiver, View, Watch};

/// A pin that only remembers its level.
#[derive(Default)]
struct Pin(bool);

impl ErrorType for Pin {
    type Error = Infallible;
}

impl OutputPin for Pin {
    fn set_low(&mut self) -> Result<(), Infallible> {
        self.0 = false;
        Ok(())
    }

    fn set_high(&mut self) -> Result<(), Infallible> {
        self.0 = true;
        Ok(())
    }
}

const WATCH: Watch = Watch {
    area: Rect {
        x: 12,
        y: 12,
        width: 24,
        height: 16,
    },
    class: "obstacle",
    limit: 60,
    patience_ms: 500,
};

/// A cable on which one byte in a thousand is lost and one bit in ten thousand
/// flips.
const FAULTS: Faults = Faults {
    flip_ppm: 100,
    drop_ppm: 1_000,
    split_ppm: 200_000,
    stall_ppm: 100_000,
    stall_polls: 4,
};

/// Runs node and controller against each other for `frames` frames, starts the
/// node anew and runs as many again; tells what each view showed. Gives what the controller's decoder has counted, once
/// all its commands have been answered.
fn demonstrate(frames: u32, mut tell: impl FnMut(&View, bool)) -> Option<Counters> {
    let cable = Cable::new(1, FAULTS);
    let (near, far) = cable.ends();
    let mut node = Node::new(far, Text::new("node").unwrap_or_default());
    let mut controller = Receiver::new(
        near,
        Pin::default(),
        MonoLamp::new(Pin::default(), Polarity::ActiveHigh),
        Text::new("controller").unwrap_or_default(),
        WATCH,
    );
    let mut now_ms = 0;
    for _ in 0..2 {
        while node.frame < frames {
            now_ms += 1;
            let (Ok(()), Ok(event)) = (node.step(now_ms), controller.step(now_ms)) else {
                return None;
            };
            if let (Some(Event::Viewed), Some(view)) = (event, controller.view()) {
                tell(view, controller.is_braking());
            }
        }
        node = node.restarted();
    }
    controller
        .is_set_up()
        .then(|| *controller.link().counters())
}

/// [`demonstrate`], told line by line. Whether all went well.
fn show(mut print: impl FnMut(core::fmt::Arguments<'_>)) -> bool {
    let counters = demonstrate(20, |view, braking| {
        print(format_args!(
            "frame {:>2}: {:>3} pixels of obstacle, brake {}",
            view.frame,
            view.counts[1],
            if braking { "on" } else { "off" }
        ));
    });
    print(format_args!("{counters:?}"));
    counters.is_some()
}

#[cfg(not(target_os = "none"))]
fn main() -> std::process::ExitCode {
    match show(|line| println!("{line}")) {
        true => std::process::ExitCode::SUCCESS,
        false => std::process::ExitCode::FAILURE,
    }
}

/// On a microcontroller: what it prints goes to the debugger, or to an emulator that stands in for
/// one.
#[cfg(target_os = "none")]
mod bare {
    use core::fmt::{Arguments, Write};

    use cortex_m_semihosting::{debug, hio};

    #[cortex_m_rt::entry]
    fn main() -> ! {
        end(super::show(print))
    }

    #[panic_handler]
    fn halt(panic: &core::panic::PanicInfo<'_>) -> ! {
        print(format_args!("{panic}"));
        end(false)
    }

    fn print(line: Arguments<'_>) {
        // Nobody listens where no debugger is connected.
        let _ = hio::hstdout().map(|mut out| writeln!(out, "{line}"));
    }

    fn end(well: bool) -> ! {
        debug::exit(match well {
            true => debug::EXIT_SUCCESS,
            false => debug::EXIT_FAILURE,
        });
        loop {
            core::hint::spin_loop();
        }
    }
}
