//! A video file or a stream, decoded by ffmpeg or GStreamer.

use std::{
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use loftup_runtime::video::{Polled, VideoFrame, VideoReader};

use super::{Clock, MAX_SLEEP, Poll, Source, SourceError, piped::RETRY_INTERVAL};
use crate::frame::RawFrame;

/// Time limit of a decoder for its first frame.
const START_TIMEOUT: Duration = Duration::from_secs(20);
/// Maximum time between two frames of a file at its own rate; longer gaps are shortened.
const MAX_GAP: Duration = Duration::from_secs(1);
/// A file that is late by more than this continues from now instead of catching up.
const MAX_LATE: Duration = Duration::from_millis(500);

/// The frames of a video: of a file at its own rate or a given one, of a live stream as they arrive.
pub struct Video {
    path: PathBuf,
    period: Option<Duration>,
    repeat: bool,
    reader: Option<VideoReader>,
    opened: Instant,
    /// Number of frames of earlier runs, and of this one.
    before: u64,
    count: u64,
    /// Whether a file has ended.
    ended: bool,
    frame: VideoFrame,
    /// Time to deliver `frame`, if it has not been delivered yet.
    due: Option<Instant>,
    pacer: Pacer,
}

/// Converts the timestamps of a file's frames to delivery times.
#[derive(Debug, Default)]
struct Pacer {
    /// Delivery time of the last frame, and its timestamp in the file.
    last: Option<(Instant, Duration)>,
}

impl Pacer {
    /// Returns the delivery time of a frame. `most` is the maximum time between two frames.
    fn due(&mut self, time: Duration, now: Instant, most: Duration) -> Instant {
        let due = self.last.map_or(now, |(due, before)| {
            due + time.saturating_sub(before).min(most)
        });
        let due = match now.saturating_duration_since(due) > MAX_LATE {
            true => now,
            false => due,
        };
        self.last = Some((due, time));
        due
    }
}

impl Video {
    /// Opens a file or stream. `rate_hz` overrides the rate of a file.
    ///
    /// # Errors
    /// The file does not exist, or no program to decode it is installed.
    pub fn open(path: &Path, rate_hz: Option<f64>, repeat: bool) -> Result<Self, SourceError> {
        Ok(Self {
            path: path.into(),
            period: rate_hz.map(|rate| Duration::from_secs_f64(1.0 / rate.clamp(0.001, 1e6))),
            repeat,
            reader: Some(VideoReader::open(path)?),
            opened: Instant::now(),
            before: 0,
            count: 0,
            ended: false,
            frame: VideoFrame::default(),
            due: None,
            pacer: Pacer::default(),
        })
    }

    /// Returns the reader, which is reopened after its end, but not too often.
    fn reader(&mut self) -> Result<Option<&mut VideoReader>, SourceError> {
        if self.reader.is_none() {
            let wait = RETRY_INTERVAL.saturating_sub(self.opened.elapsed());
            thread::sleep(wait.min(MAX_SLEEP));
            if wait > MAX_SLEEP {
                return Ok(None);
            }
            self.opened = Instant::now();
            self.reader = Some(VideoReader::open(&self.path)?);
        }
        Ok(self.reader.as_mut())
    }

    /// Called after the last frame of a run, or an error.
    fn finish(&mut self, is_live: bool) {
        self.reader = None;
        // A source that has not had a frame yet may have one later.
        self.ended = !is_live && !self.repeat && self.count > 0;
        self.before += self.count;
        self.count = 0;
        self.pacer = Pacer::default();
    }

    /// Waits until the frame is due, and delivers it.
    fn deliver(&mut self, due: Instant, clock: &Clock, into: &mut RawFrame) -> Poll {
        let wait = due.saturating_duration_since(Instant::now());
        thread::sleep(wait.min(MAX_SLEEP));
        if wait > MAX_SLEEP {
            self.due = Some(due);
            return Poll::Starting;
        }
        self.due = None;
        into.number = self.before + self.frame.number;
        into.stamp_us = clock.now_us();
        (into.width, into.height) = (self.frame.width, self.frame.height);
        std::mem::swap(&mut into.bytes, &mut self.frame.data);
        Poll::Frame
    }
}

impl Source for Video {
    fn next(&mut self, clock: &Clock, into: &mut RawFrame) -> Result<Poll, SourceError> {
        if let Some(due) = self.due {
            return Ok(self.deliver(due, clock, into));
        }
        if self.ended {
            return Ok(Poll::End);
        }
        let mut frame = std::mem::take(&mut self.frame);
        let Some(reader) = self.reader()? else {
            return Ok(Poll::Nothing);
        };
        let polled = reader.poll(MAX_SLEEP, &mut frame);
        let (is_live, problem) = (reader.is_live(), reader.problem().map(str::to_owned));
        self.frame = frame;
        match polled {
            Ok(Polled::Frame) => {
                self.count = self.frame.number + 1;
                let now = Instant::now();
                let time = match self.period {
                    Some(period) => Some(period.mul_f64(self.frame.number as f64)),
                    None => self.frame.time,
                };
                let due = match time {
                    Some(time) if !is_live => {
                        let most = MAX_GAP.max(self.period.unwrap_or_default());
                        self.pacer.due(time, now, most)
                    }
                    _ => now,
                };
                Ok(self.deliver(due, clock, into))
            }
            Ok(Polled::Nothing) if self.count == 0 && self.opened.elapsed() < START_TIMEOUT => {
                Ok(Poll::Starting)
            }
            Ok(Polled::Nothing) => Ok(Poll::Nothing),
            Ok(Polled::End) => {
                self.finish(is_live);
                let path = self.path.display();
                match problem {
                    Some(problem) => Err(SourceError::Other(format!("{path}: {problem}"))),
                    None if is_live => Err(SourceError::Other(format!("{path}: it has ended"))),
                    None if self.ended => Ok(Poll::End),
                    None => Ok(Poll::Nothing),
                }
            }
            Err(e) => {
                self.finish(is_live);
                Err(e.into())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_due_at_their_times_without_long_gaps_or_bursts() {
        let mut pacer = Pacer::default();
        let start = Instant::now();
        let ms = Duration::from_millis;
        // Time in the file, time of arrival, time of delivery, in milliseconds.
        for (time, arrives, due) in [
            (5000, 0, 0),
            (5040, 10, 40),
            (5080, 90, 80),
            // A gap.
            (65_000, 100, 1080),
            // Late: the ones after it keep their distance.
            (65_040, 2000, 2000),
            (65_080, 2001, 2040),
            // Backward.
            (10, 2002, 2040),
            (50, 2003, 2080),
        ] {
            let got = pacer.due(ms(time), start + ms(arrives), MAX_GAP);
            assert_eq!(got - start, ms(due), "{time}");
        }
    }

    #[test]
    fn a_slow_rate_is_kept() {
        let mut pacer = Pacer::default();
        let (start, period) = (Instant::now(), Duration::from_secs(10));
        for frame in 0..3 {
            let due = pacer.due(period * frame, start + period * frame, period);
            assert_eq!(due - start, period * frame);
        }
    }
}
