//! Runs `examples/mcu_receiver` over a noisy link: whatever happens on the
//! link, its counts are correct, its commands are executed, and it brakes
//! without a recent result.

#[allow(dead_code)]
#[path = "../examples/mcu_receiver/cable.rs"]
mod cable;
#[allow(dead_code)]
#[path = "../examples/mcu_receiver/node.rs"]
mod node;
#[allow(dead_code)]
#[path = "../examples/mcu_receiver/receiver.rs"]
mod receiver;

use std::cell::Cell;
use std::convert::Infallible;
use std::rc::Rc;

use embedded_hal::digital::{ErrorType, OutputPin};
use loftup_board::{MonoLamp, Polarity};
use loftup_wire::Text;
use loftup_wire::faults::Faults;
use loftup_wire::message::Rect;

use cable::{Cable, End};
use node::{HEIGHT, LABELS, Node, WIDTH, feature, scene};
use receiver::{CHANNELS, Event, POINTS, Receiver, Watch};

#[derive(Clone, Default)]
struct Pin(Rc<Cell<Option<bool>>>);

impl ErrorType for Pin {
    type Error = Infallible;
}

impl OutputPin for Pin {
    fn set_low(&mut self) -> Result<(), Infallible> {
        self.0.set(Some(false));
        Ok(())
    }
    fn set_high(&mut self) -> Result<(), Infallible> {
        self.0.set(Some(true));
        Ok(())
    }
}

const AREA: Rect = Rect {
    x: 12,
    y: 12,
    width: 24,
    height: 16,
};

fn controller<'c>(end: End<'c>, brake: &Pin, area: Rect) -> Receiver<End<'c>, Pin, MonoLamp<Pin>> {
    let watch = Watch {
        area,
        class: LABELS[1],
        limit: 60,
        patience_ms: 500,
    };
    let lamp = MonoLamp::new(Pin::default(), Polarity::ActiveHigh);
    let name = Text::new("controller").unwrap();
    Receiver::new(end, brake.clone(), lamp, name, watch)
}

fn node(end: End<'_>) -> Node<End<'_>> {
    Node::new(end, Text::new("node").unwrap())
}

/// Slow reference: counts pixel by pixel in the whole image.
fn count(frame: u32, area: &Rect) -> [u32; 256] {
    let map = scene(frame);
    let mut counts = [0; 256];
    for y in area.y..area.y + area.height {
        for x in area.x..area.x + area.width {
            let pixel = usize::from(y) * usize::from(WIDTH) + usize::from(x);
            counts[usize::from(map[pixel])] += 1;
        }
    }
    counts
}

/// Runs for 60 s; returns the number of complete views and of frames sent.
fn drive(seed: u64, faults: Faults, area: Rect) -> (u32, u32) {
    let cable = Cable::new(seed, faults);
    let (near, far) = cable.ends();
    let brake = Pin::default();
    let mut node = node(far);
    let mut controller = controller(near, &brake, area);
    let (mut views, mut last) = (0, 0);
    for now_ms in 0..60_000 {
        node.step(now_ms).unwrap();
        let event = controller.step(now_ms).unwrap();
        assert_eq!(brake.0.get(), Some(controller.is_braking()));
        if event == Some(Event::Viewed) {
            let view = *controller.view().unwrap();
            assert!(view.frame > last, "each frame once, in order");
            assert_eq!(
                view.counts,
                count(view.frame, &area),
                "frame {}",
                view.frame
            );
            assert!(controller.is_braking() || view.counts[1] < 60);
            (views, last) = (views + 1, view.frame);
        }
    }
    assert!(controller.is_set_up());
    assert_eq!(node.queries, [true, true]);
    assert!(node.running && node.rate_mhz == 15_000);
    let counters = *controller.link().counters();
    println!(
        "seed {seed}: {views} of {} frames complete; {counters:?}",
        node.frame
    );
    (views, node.frame)
}

#[test]
fn on_a_good_cable_every_frame_is_counted() {
    let (views, frames) = drive(1, Faults::default(), AREA);
    assert!(frames > 800);
    // The frame in transit at the end may be missing.
    assert!(views + 1 >= frames, "{views} of {frames}");
}

#[test]
fn on_a_bad_cable_every_count_is_still_right_and_all_commands_arrive() {
    let faults = Faults {
        flip_ppm: 200,
        drop_ppm: 1_500,
        split_ppm: 300_000,
        stall_ppm: 200_000,
        stall_polls: 6,
    };
    for seed in 1..=4 {
        let (views, frames) = drive(seed, faults, AREA);
        assert!(frames > 500 && views > frames / 10, "{views} of {frames}");
        assert!(views < frames, "some were lost");
    }
}

#[test]
fn the_whole_image_and_a_single_pixel_can_be_watched_too() {
    for area in [
        Rect {
            x: 0,
            y: 0,
            width: WIDTH,
            height: HEIGHT,
        },
        Rect {
            x: WIDTH - 1,
            y: HEIGHT - 1,
            width: 1,
            height: 1,
        },
    ] {
        let (views, frames) = drive(5, Faults::default(), area);
        assert!(views + 1 >= frames);
    }
}

#[test]
fn the_brake_is_on_before_the_first_view_and_after_the_node_falls_silent() {
    let cable = Cable::new(1, Faults::default());
    let (near, far) = cable.ends();
    let brake = Pin::default();
    let mut node = node(far);
    let mut controller = controller(near, &brake, AREA);
    controller.step(0).unwrap();
    assert_eq!(brake.0.get(), Some(true), "from the first step on");
    let mut released = None;
    for now_ms in 1..2_000 {
        node.step(now_ms).unwrap();
        controller.step(now_ms).unwrap();
        if !controller.is_braking() {
            released = Some(now_ms);
            break;
        }
    }
    let released = released.expect("a road without obstacle");
    for now_ms in released..released + 500 {
        controller.step(now_ms).unwrap();
    }
    assert_eq!(brake.0.get(), Some(false));
    controller.step(released + 501).unwrap();
    assert_eq!(brake.0.get(), Some(true), "half a second of silence");
}

#[test]
fn a_node_that_starts_anew_is_set_up_anew() {
    let cable = Cable::new(1, Faults::default());
    let (near, far) = cable.ends();
    let brake = Pin::default();
    let mut controller = controller(near, &brake, AREA);
    let mut now_ms = 0;
    let mut old = node(far);
    while !controller.is_set_up() {
        now_ms += 1;
        old.step(now_ms).unwrap();
        controller.step(now_ms).unwrap();
    }
    // The node is restarted and sends a hello.
    let mut fresh = old.restarted();
    for _ in 0..1_000 {
        now_ms += 1;
        fresh.step(now_ms).unwrap();
        controller.step(now_ms).unwrap();
    }
    assert!(fresh.running && controller.is_set_up());
    assert!(fresh.frame > 0);
    assert_eq!(controller.link().counters().restarts, 1);
    let view = controller.view().unwrap();
    assert!(view.frame <= fresh.frame);
}

#[test]
fn features_of_the_points_arrive_within_the_step_of_their_coding() {
    let cable = Cable::new(1, Faults::default());
    let (near, far) = cable.ends();
    let mut node = node(far);
    let mut controller = controller(near, &Pin::default(), AREA);
    for now_ms in 0..2_000 {
        node.step(now_ms).unwrap();
        controller.step(now_ms).unwrap();
    }
    // From one of the last two frames, since the other may be in transit. The
    // values of a frame are within 1.75 of each other.
    let bound = 1.75 / 255.0 / 2.0 + 1e-6;
    let worst = |frame: u32| {
        let mut worst: f32 = 0.0;
        for (point, vector) in controller.features.iter().enumerate() {
            for (channel, value) in vector.iter().enumerate() {
                worst = worst.max((value - feature(frame, point, channel)).abs());
            }
        }
        worst
    };
    let worst = worst(node.frame).min(worst(node.frame - 1));
    println!(
        "{}x{CHANNELS} features, worst error {worst:e}",
        POINTS.len()
    );
    assert!(worst <= bound, "{worst}");
}
