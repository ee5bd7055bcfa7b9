//! Reasoning in the words of each dialect: an effort, a budget of tokens, or a switch.

use super::ir::{Effort, Reasoning};

/// Smallest budget that Anthropic takes.
const LEAST_BUDGET: u64 = 1_024;

impl Effort {
    /// Returns the effort of a name.
    pub(super) fn from_name(name: &str) -> Option<Self> {
        Some(match name {
            "minimal" => Self::Minimal,
            "low" => Self::Low,
            "medium" => Self::Medium,
            "high" => Self::High,
            "xhigh" => Self::ExtraHigh,
            "max" => Self::Max,
            _ => return None,
        })
    }

    /// Returns the effort that a budget of tokens comes nearest to.
    pub(super) const fn of_budget(tokens: u64) -> Self {
        match tokens {
            0..=2_048 => Self::Low,
            2_049..=10_000 => Self::Medium,
            _ => Self::High,
        }
    }

    /// Returns the name in OpenAI's dialects.
    pub(super) const fn openai(self) -> &'static str {
        match self {
            Self::Minimal => "minimal",
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
            Self::ExtraHigh | Self::Max => "xhigh",
        }
    }

    /// Returns the name in Anthropic's `output_config`.
    pub(super) const fn anthropic(self) -> &'static str {
        match self {
            Self::Minimal | Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
            Self::ExtraHigh => "xhigh",
            Self::Max => "max",
        }
    }

    /// Returns the name in Ollama's `think`.
    pub(super) const fn ollama(self) -> &'static str {
        match self {
            Self::Minimal | Self::Low => "low",
            Self::Medium => "medium",
            Self::High | Self::ExtraHigh | Self::Max => "high",
        }
    }

    /// Returns the budget of tokens that it stands for.
    pub(super) const fn budget(self) -> u64 {
        match self {
            Self::Minimal | Self::Low => LEAST_BUDGET,
            Self::Medium => 4_096,
            Self::High => 16_384,
            Self::ExtraHigh | Self::Max => 32_000,
        }
    }
}

impl Reasoning {
    /// Returns the effort for a model that is told an effort; none where the model decides.
    ///
    /// Claude's clients ask every model to reason, and a model that cannot do it refuses the
    /// whole request: such a wish is passed on only to models that are known for it.
    pub(super) fn effort(self, model: &str) -> Option<Effort> {
        match self {
            Self::Off => None,
            Self::Effort(effort) => Some(effort),
            Self::Budget(tokens) => reasons(model).then(|| Effort::of_budget(tokens)),
            // More than `high` is known to few models.
            Self::Adaptive(effort) => {
                effort.filter(|_| reasons(model)).map(|effort| effort.min(Effort::High))
            }
        }
    }
}

/// Returns whether the name of a model is that of one that reasons.
pub(super) fn reasons(model: &str) -> bool {
    let name = base_name(model);
    let starts =
        ["o1", "o3", "o4", "gpt-5", "gpt-6", "gpt-oss", "grok-3-mini", "gemini-2.5", "gemini-3"];
    let parts = ["-r1", "reason", "think", "magistral", "qwen3", "qwq", "deepseek-v3.1", "glm-4.5"];
    let is_plain = ["coder", "instruct"].iter().any(|part| name.contains(part));
    let is_known = starts.iter().any(|start| name.starts_with(start))
        || parts.iter().any(|p| name.contains(p));
    is_known && !is_plain
}

/// Returns the name of a model without the name of who offers it, in lower case.
pub(super) fn base_name(model: &str) -> String {
    model.rsplit('/').next().unwrap_or(model).to_ascii_lowercase()
}

/// Returns major and minor version of a Claude, `None` where it is another model.
pub(super) fn claude_version(model: &str) -> Option<(u32, u32)> {
    let name = base_name(model);
    let at = name.find("claude-")?;
    // A date of eight digits is no version.
    let mut numbers = name[at..]
        .split(['-', '.', '@', '[', ':'])
        .filter_map(|part| part.parse::<u32>().ok())
        .take_while(|number| *number < 100);
    let major = numbers.next()?;
    Some((major, numbers.next().unwrap_or(0)))
}

/// Returns the budget that fits below a limit of tokens, none where there is no room for one.
pub(super) fn budget_within(wanted: u64, max_tokens: u64) -> Option<u64> {
    // At least as much again is left for the answer where the limit is tight.
    let room = max_tokens.saturating_sub(LEAST_BUDGET);
    let budget = wanted.max(LEAST_BUDGET).min(room);
    (budget >= LEAST_BUDGET).then_some(budget)
}
