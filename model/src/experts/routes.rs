//! Which tokens go to which experts, sorted by expert: the plan that dispatch follows.
//!
//! Axis letters: `N` tokens, `K` experts per token, `E` experts, `R` rows (`N · K`).

/// The experts of each token, and the tokens of each expert.
///
/// A row is a token sent to an expert. Rows are sorted by expert and, within one, by token, so that
/// each expert works on one run of memory and sums come in a fixed order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Routes {
    chosen: Vec<u32>,
    num_experts_per_tok: usize,
    starts: Vec<usize>,
    places: Vec<u32>,
    rows: Vec<u32>,
}

impl Routes {
    /// The plan for tokens whose experts are listed one token after another, `[N, K]`.
    ///
    /// # Panics
    ///
    /// If an expert is not below `num_experts`, or the list is no whole number of tokens.
    pub fn new(chosen: Vec<u32>, num_experts_per_tok: usize, num_experts: usize) -> Self {
        assert!(
            chosen.len().is_multiple_of(num_experts_per_tok),
            "{} experts for tokens with {num_experts_per_tok} each",
            chosen.len()
        );
        let mut starts = vec![0; num_experts + 1];
        for &expert in &chosen {
            starts[expert as usize + 1] += 1;
        }
        for expert in 0..num_experts {
            starts[expert + 1] += starts[expert];
        }
        let mut next = starts.clone();
        let mut places = vec![0; chosen.len()];
        let rows = chosen
            .iter()
            .zip(0..)
            .map(|(&expert, place)| {
                let row = next[expert as usize];
                next[expert as usize] += 1;
                places[row] = place;
                row as u32
            })
            .collect();
        Self {
            chosen,
            num_experts_per_tok,
            starts,
            places,
            rows,
        }
    }

    /// Number of tokens, `N`.
    pub fn num_tokens(&self) -> usize {
        self.chosen.len() / self.num_experts_per_tok
    }

    /// Number of experts, `E`.
    pub fn num_experts(&self) -> usize {
        self.starts.len() - 1
    }

    /// Experts that each token is sent to, `K`.
    pub fn num_experts_per_tok(&self) -> usize {
        self.num_experts_per_tok
    }

    /// Number of rows, `R`.
    pub fn num_rows(&self) -> usize {
        self.chosen.len()
    }

    /// The experts of every token, best first, `[N, K]`.
    pub fn chosen(&self) -> &[u32] {
        &self.chosen
    }

    /// Rows that an expert works on.
    pub fn rows_of(&self, expert: usize) -> std::ops::Range<usize> {
        self.starts[expert]..self.starts[expert + 1]
    }

    /// For every row, its place in `[N, K]`.
    pub fn places(&self) -> &[u32] {
        &self.places
    }

    /// For every place in `[N, K]`, its row.
    pub fn rows(&self) -> &[u32] {
        &self.rows
    }

    /// The token of every row, `[R]`.
    pub fn tokens(&self) -> impl ExactSizeIterator<Item = usize> {
        let per_token = self.num_experts_per_tok;
        self.places
            .iter()
            .map(move |&place| place as usize / per_token)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Three tokens with two of four experts each, sorted by hand; nobody goes to expert 1.
    #[test]
    fn rows_are_sorted_by_expert_and_then_by_token() {
        let routes = Routes::new(vec![2, 0, 3, 2, 0, 2], 2, 4);
        assert_eq!(routes.num_tokens(), 3);
        let rows: Vec<_> = (0..4).map(|expert| routes.rows_of(expert)).collect();
        assert_eq!(rows, [0..2, 2..2, 2..5, 5..6]);
        assert_eq!(routes.tokens().collect::<Vec<_>>(), [0, 2, 0, 1, 2, 1]);
        assert_eq!(routes.places(), [1, 4, 0, 3, 5, 2]);
        assert_eq!(routes.rows(), [2, 0, 5, 3, 1, 4]);
    }

    /// A batch without tokens routes nothing.
    #[test]
    fn no_tokens_are_no_rows() {
        let routes = Routes::new(Vec::new(), 2, 4);
        assert_eq!((routes.num_tokens(), routes.num_rows()), (0, 0));
        assert!((0..4).all(|expert| routes.rows_of(expert).is_empty()));
    }
}
