//! A controller that brakes for obstacles: it counts the pixels of a class in a
//! rectangle, receives the features of three points, and shows the node's
//! health on an LED. Everything below `main` is `no_std` and uses only the
//! traits of embedded-hal and embedded-io. To port it to a board, replace the
//! in-memory link by the board's serial port and pins.
//!
//! To run it on a computer: `cargo run -p loftup-board --example mcu_receiver`.
//! `tools/build_thumb.sh` builds it for a microcontroller and runs it in an
//! emulator with 64 kB of memory; the output must be the same.

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

/// A pin that records its level.
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

/// One byte in a thousand is lost and one bit in ten thousand is flipped.
const FAULTS: Faults = Faults {
    flip_ppm: 100,
    drop_ppm: 1_000,
    split_ppm: 200_000,
    stall_ppm: 100_000,
    stall_polls: 4,
};

/// Runs node and controller against each other for `frames` frames, restarts
/// the node, and runs for as many frames again; passes each view to `tell`.
/// Returns the statistics of the controller's decoder once all of its commands
/// have been executed.
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

/// Runs [`demonstrate`] and prints each view. Returns whether it succeeded.
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

/// On a microcontroller, output goes to the debugger or emulator through
/// semihosting.
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
        // Fails if no debugger is connected, which is fine.
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
