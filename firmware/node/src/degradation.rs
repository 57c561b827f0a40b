//! Graceful degradation: when the output shrinks and when it recovers.

use loftup_board::ThermalState;

/// When to go a step down or up.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Policy {
    /// Deadlines missed in a row that lead a step down.
    pub miss_limit: u32,
    /// Outputs in a row, each well within the deadline, that lead a step up.
    pub recover_after: u32,
    /// How long between two steps down because of heat.
    pub heat_step_us: u64,
    /// Steps that there are, beyond step 0.
    pub steps: usize,
}

/// The step that the node is on. It goes down one step for [`Policy::miss_limit`] missed deadlines in
/// a row, or for as long as it is hot, and up again after [`Policy::recover_after`] outputs that came
/// well in time. A step up that turns out to have been too early doubles the patience, up to
/// eight times; one that lasts restores it.
#[derive(Debug)]
pub struct DegradationController {
    policy: Policy,
    level: usize,
    missed: u32,
    good: u32,
    patience: u32,
    /// Outputs since the last step up, where that was the last step.
    on_trial: Option<u32>,
    heat: ThermalState,
    heat_step_at: Option<u64>,
    /// Outputs in time since the last miss, while late.
    late: Option<u32>,
}

/// Whether an output met its deadline.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeadlineOutcome {
    /// So early that a larger one would probably come in time.
    Early,
    /// In time.
    Met,
    /// After its deadline, or never because it was too old.
    Missed,
}

/// A step was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Smaller.
    Down,
    /// Larger.
    Up,
}

impl DegradationController {
    /// At step 0.
    pub fn new(policy: Policy) -> Self {
        Self {
            policy,
            level: 0,
            missed: 0,
            good: 0,
            patience: 1,
            on_trial: None,
            heat: ThermalState::Normal,
            heat_step_at: None,
            late: None,
        }
    }

    /// The present step, 0 for the whole output.
    pub fn level(&self) -> usize {
        self.level
    }

    /// Whether deadlines have been missed in a row, and not yet met again for long enough at
    /// step 0.
    pub fn is_late(&self) -> bool {
        self.late.is_some()
    }

    /// Whether outputs are to stop altogether.
    pub fn is_paused(&self) -> bool {
        self.heat == ThermalState::Critical
    }

    /// An output came, or did not come in time.
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
                self.patience = 1;
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
                        self.patience = (self.patience * 2).min(8);
                    }
                    return self.down();
                }
            }
            DeadlineOutcome::Met => (self.missed, self.good) = (0, 0),
            DeadlineOutcome::Early => {
                self.missed = 0;
                self.good += 1;
                let enough = self.policy.recover_after.saturating_mul(self.patience);
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

    /// How hot it is at `now_us`. To be told again and again.
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
    fn only_misses_in_a_row_lead_down() {
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
    fn it_grows_back_a_step_at_a_time_and_only_when_answers_are_early() {
        let mut l = degradation();
        feed(&mut l, Missed, 6);
        assert_eq!(l.level(), 2);
        feed(&mut l, Met, 100);
        assert_eq!(l.level(), 2, "in time is not early");
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
    fn a_step_up_that_fails_makes_the_next_wait_longer_until_one_lasts() {
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
            "patience as at first"
        );
    }

    #[test]
    fn heat_leads_down_in_its_own_time_and_keeps_from_growing() {
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
