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

/// Slots beyond what is needed that a storage gets when it is made anew.
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

    /// Lets the only row of another cache join as the last one; no row here holds more than
    /// `longest` slots.
    ///
    /// # Panics
    ///
    /// If the other cache has another shape or not exactly one row.
    pub fn push_row(&mut self, row: Self, longest: usize) {
        assert_eq!(row.num_rows(), 1, "one row joins at a time");
        for (layer, row) in self.layers.iter_mut().zip(row.layers) {
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

    /// A cache of one row that holds the first slots of this cache's first row, with room for
    /// `capacity`.
    ///
    /// # Panics
    ///
    /// If there are fewer slots.
    #[must_use]
    pub fn copy_of_first(&self, num_slots: usize, capacity: usize) -> Self {
        let layers = self.layers.iter().map(|layer| {
            assert!(num_slots <= layer.num_slots, "slots that are not filled");
            let copy = |storage: &Option<Tensor<4>>| {
                let storage = storage.clone().expect("every write puts the storage back");
                Some(relocated(&storage, 1, 0..num_slots, 0, [1, capacity]))
            };
            LayerCache {
                keys: copy(&layer.keys),
                values: copy(&layer.values),
                num_rows: 1,
                num_slots,
            }
        });
        Self {
            layers: layers.collect(),
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

    fn push_row(&mut self, row: Self, longest: usize) {
        let index = self.num_rows;
        let (len, filled) = (row.num_slots, self.num_slots);
        let longest = longest.min(filled);
        let end = filled.max(len);
        let [room, capacity] = self.room();
        if index == room || end >= capacity || filled < len {
            let room = if index == room { 2 * room.max(1) } else { room };
            let capacity = if end >= capacity {
                end + end.max(SPARE_SLOTS)
            } else {
                capacity
            };
            self.relocate(filled - longest..filled, end - longest, [room, capacity]);
        }
        for (storage, row) in [(&mut self.keys, row.keys), (&mut self.values, row.values)] {
            let row = row.expect("every write puts the storage back");
            let [_, _, heads, size] = row.dims();
            let added = row.slice([0..1, 0..len, 0..heads, 0..size]);
            let whole = storage.take().expect("every write puts the storage back");
            let place = [index..index + 1, end - len..end, 0..heads, 0..size];
            *storage = Some(whole.slice_assign(place, added));
        }
        self.num_rows = index + 1;
        self.num_slots = end;
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
        let filled = self.num_slots;
        if filled < capacity {
            return;
        }
        let longest = longest.min(filled);
        let capacity = if 2 * longest <= capacity {
            capacity
        } else {
            2 * capacity.max(SPARE_SLOTS)
        };
        self.relocate(filled - longest..filled, 0, [room, capacity]);
        self.num_slots = longest;
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
mod tests {
    use super::*;

    fn layer(capacity: usize) -> LayerCache {
        let device = Device::flex();
        let storage = || Some(Tensor::zeros([2, capacity, 1, 2], &device));
        LayerCache {
            keys: storage(),
            values: storage(),
            num_rows: 2,
            num_slots: 0,
        }
    }

    /// `[2, T, 1, 2]` with row, slot and axis readable from the number.
    fn slots(range: std::ops::Range<usize>) -> Tensor<4> {
        let len = range.len();
        let numbers: Vec<f32> = (0..2)
            .flat_map(|row| range.clone().map(move |slot| (row, slot)))
            .flat_map(|(row, slot)| [0, 1].map(|axis| (100 * row + 10 * slot + axis) as f32))
            .collect();
        Tensor::from_data(TensorData::new(numbers, [2, len, 1, 2]), &Device::flex())
    }

    fn assert_same(found: Tensor<4>, expected: Tensor<4>) {
        found.into_data().assert_eq(&expected.into_data(), true);
    }

    /// Values are the keys' negatives, so that swapping them would show.
    #[test]
    fn appended_slots_come_back_in_order() {
        let mut layer = layer(5);
        layer.append(slots(0..3), slots(0..3).neg());
        let (keys, values) = layer.append(slots(3..4), slots(3..4).neg());
        assert_same(keys, slots(0..4));
        assert_same(values, slots(0..4).neg());
    }

    /// Capacity 2 is passed by the second append.
    #[test]
    fn a_full_cache_grows_and_keeps_its_slots() {
        let mut layer = layer(2);
        layer.append(slots(0..2), slots(0..2));
        layer.append(slots(2..3), slots(2..3));
        let (keys, values) = layer.append(slots(3..7), slots(3..7));
        assert_same(keys, slots(0..7));
        assert_same(values, slots(0..7));
    }

    /// One row of `len` slots, every number of which is `mark` and the slot.
    fn row(mark: usize, len: usize) -> LayerCache {
        let numbers: Vec<f32> = (0..len)
            .flat_map(|slot| [0, 1].map(|axis| (100 * mark + 10 * slot + axis) as f32))
            .collect();
        let data = TensorData::new(numbers, [1, len, 1, 2]);
        let storage = Tensor::from_data(data, &Device::flex());
        LayerCache {
            keys: Some(storage.clone()),
            values: Some(storage.neg()),
            num_rows: 1,
            num_slots: len,
        }
    }

    /// The last `len` slots of a row.
    fn tail(layer: &LayerCache, row: usize, len: usize) -> Vec<f32> {
        let keys = layer.keys.clone().unwrap();
        let slots = layer.num_slots - len..layer.num_slots;
        let tail = keys.slice([row..row + 1, slots]);
        tail.into_data().try_into_vec().unwrap()
    }

    /// A short row, a longer one that pushes it to the right, one more than there was room for.
    #[test]
    fn rows_join_at_the_end_and_leave_from_anywhere() {
        let device = Device::flex();
        let empty = Tensor::zeros([0, 2, 1, 2], &device);
        let mut layer = LayerCache {
            keys: Some(empty.clone()),
            values: Some(empty),
            num_rows: 0,
            num_slots: 0,
        };
        layer.push_row(row(1, 2), 0);
        layer.push_row(row(2, 3), 2);
        layer.push_row(row(3, 1), 3);
        assert_eq!(tail(&layer, 0, 2), [100.0, 101.0, 110.0, 111.0]);
        assert_eq!(
            tail(&layer, 1, 3),
            [200.0, 201.0, 210.0, 211.0, 220.0, 221.0]
        );
        assert_eq!(tail(&layer, 2, 1), [300.0, 301.0]);

        layer.swap_remove_row(0);
        assert_eq!(layer.num_rows, 2);
        assert_eq!(tail(&layer, 0, 1), [300.0, 301.0]);
        layer.swap_remove_row(1);
        layer.swap_remove_row(0);
        assert_eq!((layer.num_rows, layer.num_slots), (0, 0));
    }

    /// Three rows of one slot each in a storage of four: the fifth slot needs the first three.
    #[test]
    fn slots_that_no_row_reads_are_given_up_before_the_storage_grows() {
        let mut layer = layer(4);
        layer.append(slots(0..4), slots(0..4));
        layer.make_room(2);
        assert_eq!((layer.num_slots, layer.room()), (2, [2, 4]));
        assert_eq!(tail(&layer, 1, 2), [120.0, 121.0, 130.0, 131.0]);
        layer.append(slots(4..6), slots(4..6));
        layer.make_room(4);
        assert_eq!((layer.num_slots, layer.room()[0]), (4, 2));
        assert!(layer.room()[1] > 4);
    }
}
