//! Points of a curve: smoothed, thinned and measured for drawing.

use std::ops::Range;

/// Points of a drawn line: about one per pixel column.
const MAX_POINTS: usize = 3000;

/// Appends a point, unless its value is not finite.
pub(super) fn push_finite(points: &mut Vec<(u64, f64)>, step: u64, value: f64) {
    if value.is_finite() {
        points.push((step, value));
    }
}

/// Mean over about a fortieth of the run around each point; at the start the stretch shrinks on both
/// sides, so that the curve does not lag behind the falling loss.
pub(super) fn smooth(points: &[(u64, f64)]) -> Vec<(u64, f64)> {
    let mut sums = vec![0.0];
    for (_, value) in points {
        sums.push(sums[sums.len() - 1] + value);
    }
    let reach = (points.len() / 80).min(250);
    points
        .iter()
        .enumerate()
        .map(|(i, (step, _))| {
            let reach = reach.min(i);
            let (start, end) = (i - reach, (i + reach + 1).min(points.len()));
            (*step, (sums[end] - sums[start]) / (end - start) as f64)
        })
        .collect()
}

/// At most `MAX_POINTS` points that keep the outline: the lowest and highest of each stretch.
pub(super) fn thin(points: &[(u64, f64)]) -> Vec<(u64, f64)> {
    if points.len() <= MAX_POINTS {
        return points.to_vec();
    }
    let stretch = points.len().div_ceil(MAX_POINTS / 2);
    let mut kept = Vec::with_capacity(MAX_POINTS);
    for part in points.chunks(stretch) {
        let by_value = |a: &&(u64, f64), b: &&(u64, f64)| a.1.total_cmp(&b.1);
        let low = part.iter().min_by(by_value).copied();
        let high = part.iter().max_by(by_value).copied();
        let mut pair: Vec<_> = low.into_iter().chain(high).collect();
        pair.sort_by_key(|point| point.0);
        kept.extend(pair);
    }
    kept
}

/// The values' range with a margin, never empty.
pub(super) fn bounds<'a>(points: impl Iterator<Item = &'a (u64, f64)>) -> Range<f64> {
    let (low, high) = points.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), point| {
        (low.min(point.1), high.max(point.1))
    });
    let margin = (0.06 * (high - low)).max(0.05);
    low - margin..high + margin
}

#[cfg(test)]
mod tests {
    use super::*;

    /// By hand: 160 points are averaged over two neighbours on each side, fewer at the
    /// start, and behind it only at the end.
    #[test]
    fn smoothing_does_not_lag() {
        let points: Vec<_> = (0..160).map(|i| (i, (i * i) as f64)).collect();
        let smoothed = smooth(&points);
        assert_eq!(smoothed[0], (0, 0.0));
        assert_eq!(smoothed[1], (1, (0.0 + 1.0 + 4.0) / 3.0));
        assert_eq!(smoothed[4], (4, f64::from(4 + 9 + 16 + 25 + 36) / 5.0));
        assert_eq!(
            smoothed[159],
            (159, f64::from(157 * 157 + 158 * 158 + 159 * 159) / 3.0)
        );
    }

    /// A single spike among 100,000 steps is still seen.
    #[test]
    fn thinning_keeps_the_outline() {
        let mut points: Vec<_> = (0..100_000).map(|i| (i, 1.0)).collect();
        points[54_321].1 = 9.0;
        let kept = thin(&points);
        assert!(kept.len() <= MAX_POINTS);
        assert!(kept.contains(&(54_321, 9.0)));
        assert!(kept.is_sorted_by(|a, b| a.0 <= b.0));
    }
}
