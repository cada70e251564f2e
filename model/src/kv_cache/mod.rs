//! Keys and values of the tokens that rows of a batch have read so far.
//!
//! Axis letters: `R` rows there is room for, `B` rows in use, `S` slots filled so far, `T` slots
//! added, `K` key/value heads, `H` head size.
//!
//! The cache belongs to the call that decodes, never to the model: two calls on one model share
//! nothing. Rows of different lengths end in the same slot, so that one position per row says what
//! a query sees; what lies before a row's beginning is never read.

use std::ops::Range;

use burn::prelude::*;

use crate::config::ModelConfig;

/// A storage that grows gets room for twice so many slots at least.
const SPARE_SLOTS: usize = 64;

/// Storage for every layer, allocated for as many slots as the caller expects and made larger if it
/// takes more.
#[derive(Debug)]
pub struct KvCache {
    layers: Vec<LayerCache>,
}

/// One layer's keys and values.
#[derive(Debug)]
pub struct LayerCache {
    /// `[R, capacity, K, H]`; absent only while a slot range is being written.
    keys: Option<Tensor<4>>,
    values: Option<Tensor<4>>,
    num_rows: usize,
    num_slots: usize,
}

impl KvCache {
    /// An empty cache with room for `capacity` slots in each of `batch_size` rows.
    pub fn new(config: &ModelConfig, batch_size: usize, capacity: usize, device: &Device) -> Self {
        let shape = [
            batch_size,
            capacity,
            config.num_key_value_heads,
            config.head_dim,
        ];
        let layers = (0..config.num_hidden_layers)
            .map(|_| LayerCache {
                keys: Some(Tensor::zeros(shape, device)),
                values: Some(Tensor::zeros(shape, device)),
                num_rows: batch_size,
                num_slots: 0,
            })
            .collect();
        Self { layers }
    }

    /// A cache of several rows that each begin with what the one row of this cache has read: row
    /// `r` with its first `lens[r]` slots, moved to the right so that all rows end in one slot.
    ///
    /// What lies left of a shorter row is padding that no position sees.
    ///
    /// # Panics
    ///
    /// If there is no row, this cache holds several, or a length is over its slots.
    #[must_use]
    pub fn beginnings(&self, lens: &[usize], capacity: usize) -> Self {
        let longest = *lens.iter().max().expect("a cache has rows");
        assert!(
            longest <= self.num_slots(),
            "a beginning of {longest} slots of {}",
            self.num_slots()
        );
        let beginnings_of = |stored: &Option<Tensor<4>>| {
            let stored = stored.as_ref().expect("every write puts the storage back");
            let [num_rows, _, num_heads, head_size] = stored.dims();
            assert_eq!(num_rows, 1, "only one row has one beginning");
            let shape = [lens.len(), capacity.max(longest), num_heads, head_size];
            let mut storage = Tensor::zeros(shape, &stored.device()); // [B, capacity, K, H]
            for (row, &len) in lens.iter().enumerate().filter(|&(_, &len)| len > 0) {
                let beginning = stored
                    .clone()
                    .slice([0..1, 0..len, 0..num_heads, 0..head_size]); // [1, S, K, H]
                let slots = longest - len..longest;
                storage = storage
                    .slice_assign([row..row + 1, slots, 0..num_heads, 0..head_size], beginning);
            }
            Some(storage)
        };
        let layers = self.layers.iter().map(|layer| LayerCache {
            keys: beginnings_of(&layer.keys),
            values: beginnings_of(&layer.values),
            num_rows: lens.len(),
            num_slots: longest,
        });
        Self {
            layers: layers.collect(),
        }
    }

    /// Forgets the slots of every row from this one on.
    pub fn truncate(&mut self, num_slots: usize) {
        for layer in &mut self.layers {
            layer.num_slots = layer.num_slots.min(num_slots);
        }
    }

    /// Rows in use.
    pub fn num_rows(&self) -> usize {
        self.layers.first().map_or(0, |layer| layer.num_rows)
    }

    /// Number of slots filled in each row, padding included.
    pub fn num_slots(&self) -> usize {
        self.layers.first().map_or(0, |layer| layer.num_slots)
    }

    /// The layers' storages, first layer first.
    pub fn layers_mut(&mut self) -> &mut [LayerCache] {
        &mut self.layers
    }

    /// Lets a copy of the only row of another cache join as the last one; no row here holds more than
    /// `longest` slots.
    ///
    /// # Panics
    ///
    /// If the other cache has another shape or not exactly one row.
    pub fn push_row(&mut self, row: &Self, longest: usize) {
        assert_eq!(row.num_rows(), 1, "one row joins at a time");
        for (layer, row) in self.layers.iter_mut().zip(&row.layers) {
            layer.push_row(row, longest);
        }
    }

    /// Takes a row out; the last one takes its place.
    ///
    /// # Panics
    ///
    /// If there is no such row.
    pub fn swap_remove_row(&mut self, index: usize) {
        for layer in &mut self.layers {
            layer.swap_remove_row(index);
        }
    }

    /// Makes room for one more slot, where no row holds more than `longest`: slots that no row
    /// reads any more are given up before more memory is taken.
    pub fn make_room(&mut self, longest: usize) {
        for layer in &mut self.layers {
            layer.make_room(longest);
        }
    }
}

impl LayerCache {
    /// Writes `T` slots behind those already there and returns all of them.
    ///
    /// # Shapes
    ///
    /// - `keys`, `values`: `[B, T, K, H]`
    /// - returns: keys and values, each `[B, S + T, K, H]`
    ///
    /// # Panics
    ///
    /// If `B`, `K` or `H` is not what the cache holds.
    pub fn append(&mut self, keys: Tensor<4>, values: Tensor<4>) -> (Tensor<4>, Tensor<4>) {
        let [num_rows, num_added, _, _] = keys.dims();
        assert_eq!(num_rows, self.num_rows, "a row of keys for every row");
        let end = self.num_slots + num_added;
        let [room, capacity] = self.room();
        if end > capacity {
            let filled = 0..self.num_slots;
            self.relocate(filled, 0, [room, end.max(2 * capacity)]);
        }
        let slots = self.num_slots..end;
        let all_keys = write_slots(&mut self.keys, slots.clone(), keys); // [B, S + T, K, H]
        let all_values = write_slots(&mut self.values, slots, values); // [B, S + T, K, H]
        self.num_slots = end;
        (all_keys, all_values)
    }

    fn push_row(&mut self, row: &Self, longest: usize) {
        let (index, len) = (self.num_rows, row.num_slots);
        let [room, capacity] = self.room();
        let is_full = self.num_slots >= capacity;
        if index == room || is_full || self.num_slots < len {
            let room = if index == room { 2 * room.max(1) } else { room };
            self.keep_last(longest, len, room);
        }
        let end = self.num_slots;
        for (storage, row) in [(&mut self.keys, &row.keys), (&mut self.values, &row.values)] {
            let row = row.clone().expect("every write puts the storage back");
            let [_, _, heads, size] = row.dims();
            let added = row.slice([0..1, 0..len, 0..heads, 0..size]);
            let whole = storage.take().expect("every write puts the storage back");
            let place = [index..index + 1, end - len..end, 0..heads, 0..size];
            *storage = Some(whole.slice_assign(place, added));
        }
        self.num_rows = index + 1;
    }

    fn swap_remove_row(&mut self, index: usize) {
        assert!(index < self.num_rows, "row {index} of {}", self.num_rows);
        let last = self.num_rows - 1;
        if index < last {
            for storage in [&mut self.keys, &mut self.values] {
                let whole = storage.take().expect("every write puts the storage back");
                let [_, _, heads, size] = whole.dims();
                let slots = 0..self.num_slots;
                let from = [last..last + 1, slots.clone(), 0..heads, 0..size];
                // A product has memory of its own: with a view still alive, the write below would
                // copy the whole storage.
                let row = whole.clone().slice(from).mul_scalar(1.0); // [1, S, K, H]
                let to = [index..index + 1, slots, 0..heads, 0..size];
                *storage = Some(whole.slice_assign(to, row));
            }
        }
        self.num_rows = last;
        if last == 0 {
            self.num_slots = 0;
        }
    }

    fn make_room(&mut self, longest: usize) {
        let [room, capacity] = self.room();
        if self.num_slots >= capacity {
            self.keep_last(longest, 0, room);
        }
    }

    /// Gives up all slots but the last `longest`, where `least` are wanted, and makes the storage
    /// larger only where more than half of it would be filled: without that, a batch whose rows come
    /// and go would need ever more memory.
    fn keep_last(&mut self, longest: usize, least: usize, room: usize) {
        let longest = longest.min(self.num_slots);
        let end = longest.max(least);
        let [_, capacity] = self.room();
        let capacity = if 2 * end <= capacity {
            capacity
        } else {
            2 * capacity.max(end).max(SPARE_SLOTS)
        };
        let kept = self.num_slots - longest..self.num_slots;
        self.relocate(kept, end - longest, [room, capacity]);
        self.num_slots = end;
    }

    /// Rows and slots there is memory for.
    fn room(&self) -> [usize; 2] {
        let storage = self.keys.as_ref();
        let [rows, slots, _, _] = storage.expect("every write puts the storage back").dims();
        [rows, slots]
    }

    /// Moves the slots of all rows in use to `start` of a fresh storage.
    fn relocate(&mut self, slots: Range<usize>, start: usize, room: [usize; 2]) {
        for storage in [&mut self.keys, &mut self.values] {
            let old = storage.take().expect("every write puts the storage back");
            *storage = Some(relocated(&old, self.num_rows, slots.clone(), start, room));
        }
    }
}

/// Writes `added` into the slots and returns everything up to their end.
fn write_slots(stored: &mut Option<Tensor<4>>, slots: Range<usize>, added: Tensor<4>) -> Tensor<4> {
    // The tensor is taken out so that it has one owner: only then does Burn write in place instead
    // of copying the whole cache for every token.
    let storage = stored.take().expect("every write puts the storage back");
    let [_, _, num_heads, head_size] = storage.dims();
    let [num_rows, _, _, _] = added.dims();
    assert_shape!(added, [_, _, num_heads, head_size]);
    let end = slots.end;
    let place = [0..num_rows, slots, 0..num_heads, 0..head_size];
    let storage = storage.slice_assign(place, added);
    let filled = storage.clone().slice([0..num_rows, 0..end]); // [B, S + T, K, H]
    *stored = Some(storage);
    filled
}

/// A fresh storage with room for `[R, capacity]`, into which slots of the first rows are copied.
fn relocated(
    storage: &Tensor<4>,
    num_rows: usize,
    slots: Range<usize>,
    start: usize,
    [room, capacity]: [usize; 2],
) -> Tensor<4> {
    let [_, _, num_heads, head_size] = storage.dims();
    let fresh = Tensor::zeros([room, capacity, num_heads, head_size], &storage.device());
    if num_rows == 0 || slots.is_empty() {
        return fresh;
    }
    let end = start + slots.len();
    let kept = [0..num_rows, slots, 0..num_heads, 0..head_size];
    let moved = storage.clone().slice(kept); // [B, S, K, H]
    fresh.slice_assign([0..num_rows, start..end, 0..num_heads, 0..head_size], moved)
}

#[cfg(test)]
mod tests;
