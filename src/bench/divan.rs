//! `cargo bench`: each operation's composed and fused body by itself, forward and backward, with
//! divan's statistics. `kindling bench kernels` compares the two in turn.

use burn::prelude::*;
use divan::Bencher;
use kindling::bench::kernels::OPERATIONS;
use model::workers::on_worker;

fn main() {
    divan::main();
}

fn names() -> impl Iterator<Item = &'static str> {
    OPERATIONS.iter().map(|(name, _)| *name)
}

#[divan::bench(args = names())]
fn composed(bencher: Bencher<'_, '_>, name: &str) {
    measure(bencher, name, 0);
}

#[divan::bench(args = names())]
fn fused(bencher: Bencher<'_, '_>, name: &str) {
    measure(bencher, name, 1);
}

fn measure(bencher: Bencher<'_, '_>, name: &str, body: usize) {
    let mut operations = OPERATIONS.iter();
    let (_, pair) = operations
        .find(|(other, _)| *other == name)
        .expect("names are of these operations");
    let pass = &pair(&Device::flex().autodiff())[body];
    bencher.bench_local(|| on_worker(|| pass().backward()));
}
