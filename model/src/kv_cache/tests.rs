//! Rows that join, leave and move keep their keys and values.

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

/// Rows of one, three and no slots of three end together; forgotten slots are written again.
#[test]
fn beginnings_end_in_one_slot() {
    let device = Device::flex();
    let mut layer = LayerCache {
        keys: Some(Tensor::zeros([1, 3, 1, 2], &device)),
        values: Some(Tensor::zeros([1, 3, 1, 2], &device)),
        num_rows: 1,
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
    layer.push_row(&row(1, 2), 0);
    layer.push_row(&row(2, 3), 2);
    layer.push_row(&row(3, 1), 3);
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

/// A row leaves and another joins after every slot that is written, as with a busy server: no row
/// ever has more than four slots, and two thousand steps need no more memory than one.
#[test]
fn a_storage_does_not_grow_with_the_rows_that_come_and_go() {
    let mut layer = layer(4);
    layer.append(slots(0..2), slots(0..2));
    for _ in 0..2000 {
        layer.make_room(3);
        layer.append(slots(0..1), slots(0..1));
        layer.swap_remove_row(0);
        layer.push_row(&row(1, 2), 3);
    }
    assert!(layer.room()[1] <= 2 * SPARE_SLOTS, "{:?}", layer.room());
}
