//! Graceful degradation: when to reduce the output, and when to restore it.

use loftup_board::ThermalState;

/// When to step down or up.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Policy {
    /// Consecutive missed deadlines before a step down.
    pub miss_limit: u32,
    /// Consecutive early outputs before a step up.
    pub recover_after: u32,
    /// Interval between two steps down while it is hot.
    pub heat_step_us: u64,
    /// Number of steps, besides step 0.
    pub steps: usize,
}

/// Steps down after [`Policy::miss_limit`] consecutive missed deadlines and while it is hot. Steps
/// up after [`Policy::recover_after`] consecutive early outputs. If deadlines are missed after a step
/// up, the next one needs twice as many early outputs, up to eight times; a step up that lasts resets
/// that.
#[derive(Debug)]
pub struct DegradationController {
    policy: Policy,
    level: usize,
    missed: u32,
    good: u32,
    backoff: u32,
    /// Outputs since the last step up, until that has lasted.
    on_trial: Option<u32>,
    heat: ThermalState,
    heat_step_at: Option<u64>,
    /// Outputs in time since the last miss, while late.
    late: Option<u32>,
}

/// Whether an output met its deadline.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeadlineOutcome {
    /// Early enough for a step up.
    Early,
    /// In time.
    Met,
    /// Late, or dropped because of its age.
    Missed,
}

/// Direction of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Less output.
    Down,
    /// More output.
    Up,
}

impl DegradationController {
    /// Starts at step 0.
    pub fn new(policy: Policy) -> Self {
        Self {
            policy,
            level: 0,
            missed: 0,
            good: 0,
            backoff: 1,
            on_trial: None,
            heat: ThermalState::Normal,
            heat_step_at: None,
            late: None,
        }
    }

    /// The current step, 0 for the full output.
    pub fn level(&self) -> usize {
        self.level
    }

    /// Whether consecutive deadlines were missed, until [`Policy::recover_after`] outputs in time at
    /// step 0.
    pub fn is_late(&self) -> bool {
        self.late.is_some()
    }

    /// Whether processing pauses because of heat.
    pub fn is_paused(&self) -> bool {
        self.heat == ThermalState::Critical
    }

    /// Records the outcome of a frame.
    pub fn record(&mut self, outcome: DeadlineOutcome) -> Option<Step> {
        if let Some(n) = &mut self.late {
            *n = if outcome == DeadlineOutcome::Missed {
                0
            } else {
                n.saturating_add(1)
            };
            if *n >= self.policy.recover_after && self.level == 0 {
                self.late = None;
            }
        }
        if let Some(n) = &mut self.on_trial {
            *n += 1;
            if *n > self.policy.recover_after {
                self.on_trial = None;
                self.backoff = 1;
            }
        }
        match outcome {
            DeadlineOutcome::Missed => {
                self.good = 0;
                self.missed += 1;
                if self.missed >= self.policy.miss_limit {
                    self.missed = 0;
                    self.late = Some(0);
                    if self.on_trial.take().is_some() {
                        self.backoff = (self.backoff * 2).min(8);
                    }
                    return self.down();
                }
            }
            DeadlineOutcome::Met => (self.missed, self.good) = (0, 0),
            DeadlineOutcome::Early => {
                self.missed = 0;
                self.good += 1;
                let enough = self.policy.recover_after.saturating_mul(self.backoff);
                if self.good >= enough && self.heat == ThermalState::Normal && self.level > 0 {
                    self.good = 0;
                    self.level -= 1;
                    self.on_trial = Some(0);
                    return Some(Step::Up);
                }
            }
        }
        None
    }

    /// Updates the thermal state. Call it regularly.
    pub fn heat(&mut self, heat: ThermalState, now_us: u64) -> Option<Step> {
        self.heat = heat;
        if heat == ThermalState::Normal {
            self.heat_step_at = None;
            return None;
        }
        self.good = 0;
        let due = self.heat_step_at.is_none_or(|at| now_us >= at);
        if !due {
            return None;
        }
        self.heat_step_at = Some(now_us + self.policy.heat_step_us);
        self.down()
    }

    fn down(&mut self) -> Option<Step> {
        self.good = 0;
        if self.level == self.policy.steps {
            return None;
        }
        self.level += 1;
        Some(Step::Down)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use DeadlineOutcome::{Early, Met, Missed};

    fn degradation() -> DegradationController {
        DegradationController::new(Policy {
            miss_limit: 3,
            recover_after: 10,
            heat_step_us: 1000,
            steps: 2,
        })
    }

    fn feed(
        degradation: &mut DegradationController,
        how: DeadlineOutcome,
        n: usize,
    ) -> Vec<Option<Step>> {
        (0..n).map(|_| degradation.record(how)).collect()
    }

    #[test]
    fn only_consecutive_misses_step_down() {
        let mut l = degradation();
        for _ in 0..20 {
            assert_eq!(feed(&mut l, Missed, 2), [None, None]);
            assert_eq!(l.record(Met), None);
        }
        assert_eq!(feed(&mut l, Missed, 3), [None, None, Some(Step::Down)]);
        feed(&mut l, Missed, 30);
        assert_eq!(l.level(), 2, "the last step");
    }

    #[test]
    fn early_outputs_step_up_one_at_a_time() {
        let mut l = degradation();
        feed(&mut l, Missed, 6);
        assert_eq!(l.level(), 2);
        feed(&mut l, Met, 100);
        assert_eq!(l.level(), 2, "met is not early");
        feed(&mut l, Early, 9);
        l.record(Met);
        feed(&mut l, Early, 9);
        assert_eq!(l.level(), 2);
        assert_eq!(l.record(Early), Some(Step::Up));
        assert_eq!(l.level(), 1);
        feed(&mut l, Early, 10);
        assert_eq!(l.level(), 0);
        feed(&mut l, Early, 100);
        assert_eq!(l.level(), 0);
    }

    #[test]
    fn a_failed_step_up_doubles_the_wait_until_one_lasts() {
        let mut l = degradation();
        feed(&mut l, Missed, 3);
        let mut waits = Vec::new();
        for _ in 0..5 {
            let mut n = 1;
            while l.record(Early).is_none() {
                n += 1;
            }
            waits.push(n);
            feed(&mut l, Missed, 3);
        }
        assert_eq!(waits, [10, 20, 40, 80, 80]);
        feed(&mut l, Early, 80);
        feed(&mut l, Met, 11);
        feed(&mut l, Missed, 3);
        assert_eq!(
            feed(&mut l, Early, 10)[9],
            Some(Step::Up),
            "the backoff is reset"
        );
    }

    #[test]
    fn heat_steps_down_at_its_interval_and_prevents_steps_up() {
        let mut l = degradation();
        assert_eq!(l.heat(ThermalState::Hot, 0), Some(Step::Down));
        assert_eq!(l.heat(ThermalState::Hot, 500), None);
        assert_eq!(l.heat(ThermalState::Hot, 1000), Some(Step::Down));
        assert_eq!(l.heat(ThermalState::Hot, 2000), None, "no further step");
        feed(&mut l, Early, 50);
        assert_eq!(l.level(), 2);
        assert!(!l.is_paused());
        l.heat(ThermalState::Critical, 3000);
        assert!(l.is_paused());
        l.heat(ThermalState::Normal, 4000);
        assert!(!l.is_paused());
        assert!(feed(&mut l, Early, 60).contains(&Some(Step::Up)));
    }
}
