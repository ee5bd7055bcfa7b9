//! Quality over paid calls.

/// A prompt with the score that a strategy gave it: the higher, the sooner it is paid for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Routed {
    pub(crate) score: f64,
    pub(crate) is_local_right: bool,
    pub(crate) is_paid_right: bool,
}

impl Routed {
    fn gain(self) -> f64 {
        f64::from(u8::from(self.is_paid_right)) - f64::from(u8::from(self.is_local_right))
    }
}

/// Right answers for each number of paid calls, from none to all.
pub(crate) struct Curve {
    right: Vec<f64>,
}

impl Curve {
    /// Returns the curve of prompts that are paid for in the order of their scores. Those with one
    /// score count as paid for by chance.
    pub(crate) fn of(routed: impl Iterator<Item = Routed>) -> Self {
        let mut routed: Vec<Routed> = routed.collect();
        routed.sort_by(|a, b| b.score.total_cmp(&a.score));
        let local = routed.iter().filter(|it| it.is_local_right).count() as f64;
        let mut right = vec![local];
        let mut sum = local;
        for equal in routed.chunk_by(|a, b| a.score == b.score) {
            let gain = equal.iter().map(|it| it.gain()).sum::<f64>() / equal.len() as f64;
            for _ in equal {
                sum += gain;
                right.push(sum);
            }
        }
        Self { right }
    }

    fn local(&self) -> f64 {
        self.right[0]
    }

    fn paid(&self) -> f64 {
        self.right[self.right.len() - 1]
    }

    /// Returns the mean share of the paid model's gain that is recovered, over all numbers of paid
    /// calls: one half at random.
    pub(crate) fn apgr(&self) -> f64 {
        let steps = self.right.windows(2).map(|pair| (pair[0] + pair[1]) / 2.0 - self.local());
        steps.sum::<f64>() / (self.right.len() - 1) as f64 / (self.paid() - self.local())
    }

    /// Returns the largest share of calls that need not be paid for while a share of the paid
    /// model's right answers is kept.
    pub(crate) fn avoided(&self, quality: f64) -> f64 {
        let wanted = quality * self.paid();
        let calls = self.right.iter().position(|right| *right >= wanted);
        1.0 - calls.unwrap_or(self.right.len() - 1) as f64 / (self.right.len() - 1) as f64
    }

    /// Returns the same share where calls are paid for by chance.
    pub(crate) fn avoided_at_random(&self, quality: f64) -> f64 {
        let needed = (quality * self.paid() - self.local()) / (self.paid() - self.local());
        (1.0 - needed).clamp(0.0, 1.0)
    }
}

/// Returns the share of the paid model's right answers that is kept where some prompts are paid
/// for (`true`) and others are not.
pub(crate) fn kept(routed: impl Iterator<Item = (Routed, bool)>) -> f64 {
    let (mut right, mut paid) = (0.0, 0.0);
    for (routed, asks) in routed {
        let is_right = if asks { routed.is_paid_right } else { routed.is_local_right };
        right += f64::from(u8::from(is_right));
        paid += f64::from(u8::from(routed.is_paid_right));
    }
    right / paid
}
