//! Keys and values of the tokens a generation call has read so far.
//!
//! Axis letters: `B` batch, `S` slots filled so far, `T` slots added, `K` key/value heads, `H` head
//! size.
//!
//! The cache belongs to the call that decodes, never to the model: two calls on one model share
//! nothing.

use burn::prelude::*;

use crate::config::ModelConfig;

/// Storage for every layer, allocated once for as many slots as the call expects and doubled if it
/// takes more.
#[derive(Debug)]
pub struct KvCache {
    layers: Vec<LayerCache>,
}

/// One layer's keys and values.
#[derive(Debug)]
pub struct LayerCache {
    /// `[B, capacity, K, H]`; absent only while a slot range is being written.
    keys: Option<Tensor<4>>,
    values: Option<Tensor<4>>,
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

    /// Number of slots filled in each row, padding included.
    pub fn num_slots(&self) -> usize {
        self.layers.first().map_or(0, |layer| layer.num_slots)
    }

    /// The layers' storages, first layer first.
    pub fn layers_mut(&mut self) -> &mut [LayerCache] {
        &mut self.layers
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
    /// If `B`, `K` or `H` is not what the cache was made for.
    pub fn append(&mut self, keys: Tensor<4>, values: Tensor<4>) -> (Tensor<4>, Tensor<4>) {
        let end = self.num_slots + keys.dims()[1];
        let all_keys = write_slots(&mut self.keys, self.num_slots, keys); // [B, S + T, K, H]
        let all_values = write_slots(&mut self.values, self.num_slots, values); // [B, S + T, K, H]
        self.num_slots = end;
        (all_keys, all_values)
    }
}

/// Writes `added` from slot `start` on and returns the slots up to its end.
fn write_slots(stored: &mut Option<Tensor<4>>, start: usize, added: Tensor<4>) -> Tensor<4> {
    // The tensor is taken out so that it has one owner: only then does Burn write in place instead
    // of copying the whole cache for every token.
    let storage = stored.take().expect("every write puts the storage back");
    let [batch, capacity, num_heads, head_size] = storage.dims();
    assert_shape!(added, [batch, _, num_heads, head_size]);
    let num_added = added.dims()[1];
    let end = start + num_added;
    let storage = if end > capacity {
        grown(storage, start, end.max(2 * capacity))
    } else {
        storage
    };
    let slots = [0..batch, start..end, 0..num_heads, 0..head_size];
    let storage = storage.slice_assign(slots, added);
    let filled = storage.clone().slice([0..batch, 0..end]); // [B, S + T, K, H]
    *stored = Some(storage);
    filled
}

/// A larger storage that starts with the filled slots of this one.
fn grown(storage: Tensor<4>, num_slots: usize, capacity: usize) -> Tensor<4> {
    let [batch, _, num_heads, head_size] = storage.dims();
    let device = storage.device();
    let filled = storage.slice([0..batch, 0..num_slots]); // [B, S, K, H]
    let slots = [0..batch, 0..num_slots, 0..num_heads, 0..head_size];
    Tensor::zeros([batch, capacity, num_heads, head_size], &device).slice_assign(slots, filled)
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

    /// Rows of one, three and no slots of three end together; forgotten slots are written again.
    #[test]
    fn beginnings_end_in_one_slot() {
        let device = Device::flex();
        let mut layer = LayerCache {
            keys: Some(Tensor::zeros([1, 3, 1, 2], &device)),
            values: Some(Tensor::zeros([1, 3, 1, 2], &device)),
            num_slots: 0,
        };
        let row = |slots: Tensor<4>| slots.narrow(0, 0, 1);
        layer.append(row(slots(0..3)), row(slots(0..3)).neg());
        let cache = KvCache {
            layers: vec![layer],
        };
        let mut rows = cache.beginnings(&[1, 3, 0], 4);
        assert_eq!(rows.num_slots(), 3);
        let added = Tensor::full([3, 1, 1, 2], 7.0, &device);
        let (keys, values) = rows.layers_mut()[0].append(added.clone(), added.clone());
        let expected = [
            [0f32, 0., 0., 0., 0., 1., 7., 7.],
            [0., 1., 10., 11., 20., 21., 7., 7.],
            [0., 0., 0., 0., 0., 0., 7., 7.],
        ];
        let expected = TensorData::from(expected);
        keys.clone()
            .reshape([3, 8])
            .into_data()
            .assert_eq(&expected, true);
        let negative = values.slice([0..3, 0..3]).neg();
        assert_same(negative, keys.slice([0..3, 0..3]));

        rows.truncate(2);
        let (keys, _) = rows.layers_mut()[0].append(added.clone(), added);
        let expected = TensorData::from([[0f32, 1., 10., 11., 7., 7.]]);
        let row = keys.narrow(0, 1, 1).reshape([1, 6]);
        row.into_data().assert_eq(&expected, true);
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
}
