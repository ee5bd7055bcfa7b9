//! Strength of models from votes between two: Bradley and Terry's model, a tie being half a win.

use super::Pair;

/// Quantile of the normal distribution for an interval of 95%.
const Z: f64 = 1.96;

/// Rating of a model of average strength.
const MIDDLE: f64 = 1000.0;

/// Steps after which the search ends at the latest; it takes about 6.
const STEPS: usize = 50;

/// Place of a model on the board.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Standing {
    /// Model, `provider/model`.
    pub model: String,
    /// Votes for it.
    pub wins: u32,
    /// Votes for others.
    pub losses: u32,
    /// Votes for neither.
    pub ties: u32,
    /// Rating, on the scale of Elo.
    pub rating: f64,
    /// Bounds of the rating, at 95%.
    pub interval: (f64, f64),
}

/// Returns the models by their strength, the strongest first.
pub(super) fn rank(pairs: &[Pair]) -> Vec<Standing> {
    let mut models: Vec<&str> =
        pairs.iter().flat_map(|pair| [pair.a.as_str(), pair.b.as_str()]).collect();
    models.sort_unstable();
    models.dedup();
    let index = |model: &str| models.binary_search(&model).unwrap_or(0);
    let games: Vec<Game> = pairs
        .iter()
        .map(|pair| {
            let half = f64::from(pair.ties) / 2.0;
            Game {
                a: index(&pair.a),
                b: index(&pair.b),
                a_wins: f64::from(pair.a_wins) + half,
                b_wins: f64::from(pair.b_wins) + half,
            }
        })
        .collect();
    let (strengths, errors) = fit(models.len(), &games);
    let scale = 400.0 / std::f64::consts::LN_10;
    let mut standings: Vec<Standing> = models
        .iter()
        .zip(strengths.iter().zip(&errors))
        .map(|(model, (strength, error))| {
            let rating = MIDDLE + scale * strength;
            let half = Z * scale * error;
            let (wins, losses, ties) = votes(pairs, model);
            let model = (*model).to_owned();
            let interval = (rating - half, rating + half);
            Standing { model, wins, losses, ties, rating, interval }
        })
        .collect();
    // Those that are as strong stand in the order of their names, which they have already.
    let shown = |standing: &Standing| (standing.rating * 10.0).round();
    standings.sort_by(|one, other| shown(other).total_cmp(&shown(one)));
    standings
}

fn votes(pairs: &[Pair], model: &str) -> (u32, u32, u32) {
    pairs.iter().fold((0, 0, 0), |(wins, losses, ties), pair| {
        if pair.a == model {
            (wins + pair.a_wins, losses + pair.b_wins, ties + pair.ties)
        } else if pair.b == model {
            (wins + pair.b_wins, losses + pair.a_wins, ties + pair.ties)
        } else {
            (wins, losses, ties)
        }
    })
}

/// Votes between two models, by their places.
struct Game {
    a: usize,
    b: usize,
    a_wins: f64,
    b_wins: f64,
}

/// Returns the most likely strengths (natural logarithms) and their standard errors, by Newton's
/// method.
///
/// Each model has also won half a game and lost half a game against one of average strength: so
/// that who never lost has a strength, and the strengths have a middle.
fn fit(number: usize, games: &[Game]) -> (Vec<f64>, Vec<f64>) {
    let mut strengths = vec![0.0; number];
    let mut covariance = Vec::new();
    for _ in 0..STEPS {
        let (gradient, information) = slope(&strengths, games);
        covariance = inverse(information);
        let steps: Vec<f64> = covariance
            .iter()
            .map(|row| row.iter().zip(&gradient).map(|(a, b)| a * b).sum())
            .collect();
        let largest = steps.iter().fold(0.0_f64, |most, step| most.max(step.abs()));
        for (strength, step) in strengths.iter_mut().zip(&steps) {
            // A long step could lead past the top.
            *strength += step / largest.max(1.0);
        }
        if largest < 1e-9 {
            break;
        }
    }
    centred(strengths, &covariance)
}

/// Returns the strengths beside their mean, and the standard errors of these: how strong all of
/// them are together no vote can tell.
#[expect(clippy::cast_precision_loss, reason = "there are a few models")]
fn centred(strengths: Vec<f64>, covariance: &[Vec<f64>]) -> (Vec<f64>, Vec<f64>) {
    let number = strengths.len().max(1) as f64;
    let mean = strengths.iter().sum::<f64>() / number;
    let all = covariance.iter().flatten().sum::<f64>() / (number * number);
    let error = |(at, row): (usize, &Vec<f64>)| {
        let with_others = row.iter().sum::<f64>() / number;
        (row[at] - 2.0 * with_others + all).max(0.0).sqrt()
    };
    let errors = covariance.iter().enumerate().map(error).collect();
    (strengths.into_iter().map(|strength| strength - mean).collect(), errors)
}

/// Returns the slope of the likelihood, and its information (the curvature with the other sign).
fn slope(strengths: &[f64], games: &[Game]) -> (Vec<f64>, Vec<Vec<f64>>) {
    let number = strengths.len();
    let mut gradient = vec![0.0; number];
    let mut information = vec![vec![0.0; number]; number];
    for (at, strength) in strengths.iter().enumerate() {
        let chance = logistic(*strength);
        gradient[at] += 0.5 - chance;
        information[at][at] += chance * (1.0 - chance);
    }
    for game in games {
        let chance = logistic(strengths[game.a] - strengths[game.b]);
        let all = game.a_wins + game.b_wins;
        let surprise = game.a_wins - all * chance;
        gradient[game.a] += surprise;
        gradient[game.b] -= surprise;
        let weight = all * chance * (1.0 - chance);
        information[game.a][game.a] += weight;
        information[game.b][game.b] += weight;
        information[game.a][game.b] -= weight;
        information[game.b][game.a] -= weight;
    }
    (gradient, information)
}

fn logistic(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

/// Returns the inverse of a matrix that is symmetric and positive: no pivoting is needed.
fn inverse(mut matrix: Vec<Vec<f64>>) -> Vec<Vec<f64>> {
    let number = matrix.len();
    let mut inverse: Vec<Vec<f64>> = (0..number)
        .map(|row| (0..number).map(|column| if row == column { 1.0 } else { 0.0 }).collect())
        .collect();
    for at in 0..number {
        let pivot = matrix[at][at].max(f64::MIN_POSITIVE);
        for value in matrix[at].iter_mut().chain(&mut inverse[at]) {
            *value /= pivot;
        }
        let (row, of_inverse) = (matrix[at].clone(), inverse[at].clone());
        for other in (0..number).filter(|other| *other != at) {
            let factor = matrix[other][at];
            let beside = |line: &mut Vec<f64>, by: &[f64]| {
                line.iter_mut().zip(by).for_each(|(value, by)| *value -= factor * by);
            };
            beside(&mut matrix[other], &row);
            beside(&mut inverse[other], &of_inverse);
        }
    }
    inverse
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(a: &str, b: &str, a_wins: u32, b_wins: u32, ties: u32) -> Pair {
        Pair { a: a.to_owned(), b: b.to_owned(), a_wins, b_wins, ties }
    }

    #[test]
    fn many_votes_tell_the_strengths_they_came_from() {
        // Odds of 3 to 1 between neighbours, and so of 9 to 1 between the first and the last.
        let pairs = [
            pair("a", "b", 3000, 1000, 0),
            pair("b", "c", 3000, 1000, 0),
            pair("a", "c", 3600, 400, 0),
        ];
        let board = rank(&pairs);
        let models: Vec<&str> = board.iter().map(|it| it.model.as_str()).collect();
        assert_eq!(models, ["a", "b", "c"]);
        let step = 400.0 * 3_f64.log10();
        for two in board.windows(2) {
            let found = two[0].rating - two[1].rating;
            assert!((found - step).abs() < 1.0, "{found} and not {step}");
        }
    }

    #[test]
    fn few_votes_tell_little() {
        let board = rank(&[pair("a", "b", 1, 0, 0)]);
        let (first, second) = (&board[0], &board[1]);
        assert_eq!((first.model.as_str(), first.wins, second.losses), ("a", 1, 1));
        assert!(first.interval.0 < second.interval.1, "{board:?}");
        let more = rank(&[pair("a", "b", 400, 100, 0)]);
        let width = |it: &Standing| it.interval.1 - it.interval.0;
        assert!(width(&more[0]) < width(first), "{more:?}");
        // Half the error of the difference, which is sqrt(1 / (n p q)) for many votes.
        let expected =
            2.0 * 1.96 * (400.0 / std::f64::consts::LN_10) * (1.0 / 80.0_f64).sqrt() / 2.0;
        assert!((width(&more[0]) - expected).abs() < 1.0, "{more:?} and not {expected}");
        assert!(rank(&[]).is_empty());
    }

    #[test]
    fn who_never_lost_has_a_strength_and_a_tie_has_none() {
        let board = rank(&[pair("a", "b", 50, 0, 0)]);
        assert!(board.iter().all(|it| it.rating.is_finite() && it.rating < 4000.0), "{board:?}");
        let board = rank(&[pair("a", "b", 0, 0, 9)]);
        assert!((board[0].rating - board[1].rating).abs() < 1e-6, "{board:?}");
        assert_eq!(board[0].ties, 9);
    }
}
