//! A status LED that shows the state of the node by color and by blink pattern, so
//! that an LED of one color is enough.
//!
//! | state | color | pattern |
//! |---|---|---|
//! | starting | blue | half a second on, half off |
//! | running | green | on, with a gap of 60 ms every 2 s: an LED without gaps means a hang |
//! | degraded | yellow | two short flashes every 1.5 s |
//! | recovering | cyan | four flashes per second |
//! | failed | red | as many flashes as the [number of the reason](loftup_wire::health::Reason::number), then a pause |
//! | no report | magenta | one short flash every 3 s |

use embedded_hal::digital::OutputPin;
use loftup_wire::health::State;

/// A color: red, green and blue, each on or off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Color {
    /// Red on.
    pub red: bool,
    /// Green on.
    pub green: bool,
    /// Blue on.
    pub blue: bool,
}

impl Color {
    /// Off.
    pub const OFF: Color = Color::new(false, false, false);
    /// Red.
    pub const RED: Color = Color::new(true, false, false);
    /// Green.
    pub const GREEN: Color = Color::new(false, true, false);
    /// Blue.
    pub const BLUE: Color = Color::new(false, false, true);
    /// Red and green.
    pub const YELLOW: Color = Color::new(true, true, false);
    /// Green and blue.
    pub const CYAN: Color = Color::new(false, true, true);
    /// Red and blue.
    pub const MAGENTA: Color = Color::new(true, false, true);

    const fn new(red: bool, green: bool, blue: bool) -> Self {
        Color { red, green, blue }
    }
}

/// A lamp that can show a color.
pub trait Lamp {
    /// Error of the pins.
    type Error;

    /// Shows `color`.
    ///
    /// # Errors
    /// Errors of the pins.
    fn set(&mut self, color: Color) -> Result<(), Self::Error>;
}

/// The pin level at which a lamp is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Polarity {
    /// High.
    ActiveHigh,
    /// Low: the lamp is connected between supply and pin.
    ActiveLow,
}

impl Polarity {
    fn drive<P: OutputPin>(self, pin: &mut P, on: bool) -> Result<(), P::Error> {
        pin.set_state((on == (self == Polarity::ActiveHigh)).into())
    }
}

/// A single-color lamp. It is on for any color except [`Color::OFF`].
#[derive(Debug)]
pub struct MonoLamp<P> {
    pin: P,
    polarity: Polarity,
}

impl<P> MonoLamp<P> {
    /// A lamp on `pin`.
    pub const fn new(pin: P, polarity: Polarity) -> Self {
        MonoLamp { pin, polarity }
    }
}

impl<P: OutputPin> Lamp for MonoLamp<P> {
    type Error = P::Error;

    fn set(&mut self, color: Color) -> Result<(), P::Error> {
        self.polarity.drive(&mut self.pin, color != Color::OFF)
    }
}

/// An RGB lamp on three pins.
#[derive(Debug)]
pub struct RgbLamp<R, G, B> {
    red: R,
    green: G,
    blue: B,
    polarity: Polarity,
}

impl<R, G, B> RgbLamp<R, G, B> {
    /// A lamp on three pins of the same polarity.
    pub const fn new(red: R, green: G, blue: B, polarity: Polarity) -> Self {
        RgbLamp {
            red,
            green,
            blue,
            polarity,
        }
    }
}

/// Which pin of an [`RgbLamp`] failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RgbError<R, G, B> {
    /// Red.
    #[error("the pin of the red light failed")]
    Red(R),
    /// Green.
    #[error("the pin of the green light failed")]
    Green(G),
    /// Blue.
    #[error("the pin of the blue light failed")]
    Blue(B),
}

impl<R: OutputPin, G: OutputPin, B: OutputPin> Lamp for RgbLamp<R, G, B> {
    type Error = RgbError<R::Error, G::Error, B::Error>;

    fn set(&mut self, color: Color) -> Result<(), Self::Error> {
        let polarity = self.polarity;
        polarity
            .drive(&mut self.red, color.red)
            .map_err(RgbError::Red)?;
        polarity
            .drive(&mut self.green, color.green)
            .map_err(RgbError::Green)?;
        polarity
            .drive(&mut self.blue, color.blue)
            .map_err(RgbError::Blue)
    }
}

/// A blink pattern, repeated: `flashes` times `on_ms` on and `off_ms` off, then
/// `pause_ms` more off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pattern {
    /// Color of the flashes.
    pub color: Color,
    /// Number of flashes.
    pub flashes: u8,
    /// Duration of a flash, in milliseconds.
    pub on_ms: u16,
    /// Time off after each flash, in milliseconds.
    pub off_ms: u16,
    /// Additional time off after the last flash, in milliseconds.
    pub pause_ms: u16,
}

impl Pattern {
    /// The pattern of a state; `None` if the state is unknown.
    #[must_use]
    pub const fn of(state: Option<State>) -> Self {
        let (color, flashes, on_ms, off_ms, pause_ms) = match state {
            Some(State::Starting) => (Color::BLUE, 1, 500, 500, 0),
            Some(State::Running) => (Color::GREEN, 1, 1_940, 60, 0),
            Some(State::Degraded(_)) => (Color::YELLOW, 2, 150, 150, 900),
            Some(State::Recovering) => (Color::CYAN, 1, 125, 125, 0),
            Some(State::Failed(reason)) => (Color::RED, reason.number(), 200, 300, 1_500),
            None => (Color::MAGENTA, 1, 100, 2_900, 0),
        };
        Pattern {
            color,
            flashes,
            on_ms,
            off_ms,
            pause_ms,
        }
    }

    /// Period of the pattern, in milliseconds.
    #[must_use]
    pub const fn length_ms(&self) -> u32 {
        let flash = self.on_ms as u32 + self.off_ms as u32;
        self.flashes as u32 * flash + self.pause_ms as u32
    }

    /// The color `since_ms` milliseconds after the start.
    #[must_use]
    pub const fn at(&self, since_ms: u64) -> Color {
        let length = self.length_ms() as u64;
        let flash = self.on_ms as u64 + self.off_ms as u64;
        if length == 0 || flash == 0 {
            return Color::OFF;
        }
        let time = since_ms % length;
        let lit = time < self.flashes as u64 * flash && time % flash < self.on_ms as u64;
        if lit { self.color } else { Color::OFF }
    }
}

/// Shows the state of the node on a lamp.
#[derive(Debug)]
pub struct StatusLight<L> {
    lamp: L,
    state: Option<State>,
    since_ms: u64,
    news_ms: u64,
    patience_ms: u32,
    shown: Option<Color>,
}

impl<L: Lamp> StatusLight<L> {
    /// A light that shows "no report" until the first report, and again after
    /// `patience_ms` milliseconds without one.
    pub const fn new(lamp: L, patience_ms: u32) -> Self {
        StatusLight {
            lamp,
            state: None,
            since_ms: 0,
            news_ms: 0,
            patience_ms,
            shown: None,
        }
    }

    /// Reports the state at time `now_ms`. The pattern restarts only if the state
    /// changes.
    pub fn report(&mut self, state: State, now_ms: u64) {
        self.news_ms = now_ms;
        self.become_state(Some(state), now_ms);
    }

    fn become_state(&mut self, state: Option<State>, now_ms: u64) {
        if self.state != state {
            self.state = state;
            self.since_ms = now_ms;
        }
    }

    /// The state shown; `None` if there is no recent report.
    #[must_use]
    pub const fn state(&self) -> Option<State> {
        self.state
    }

    /// Updates the lamp at time `now_ms`. Call it about 50 times per second; the pins
    /// are written only if the color changes.
    ///
    /// # Errors
    /// Errors of the lamp; the next tick retries.
    pub fn tick(&mut self, now_ms: u64) -> Result<(), L::Error> {
        if now_ms.saturating_sub(self.news_ms) > u64::from(self.patience_ms) {
            self.become_state(None, now_ms);
        }
        let since = now_ms.saturating_sub(self.since_ms);
        let color = Pattern::of(self.state).at(since);
        if self.shown != Some(color) {
            // Unknown until the write succeeds.
            self.shown = None;
            self.lamp.set(color)?;
            self.shown = Some(color);
        }
        Ok(())
    }

    /// Turns the lamp off and returns it.
    ///
    /// # Errors
    /// Errors of the lamp.
    pub fn release(mut self) -> Result<L, L::Error> {
        self.lamp.set(Color::OFF)?;
        Ok(self.lamp)
    }
}
