//! Products with constant matrices: the right gradient for the input, none for the matrix.

use candle_core::quantized::{GgmlDType, QTensor};
use candle_core::{DType, Device, Module, Tensor, Var};
use model::nn::{Adapter, Linear, Matrix};

fn wave(rows: usize, columns: usize, seed: f32) -> Tensor {
    let values = (0..rows * columns).map(|i| ((0.37 * i as f32 + seed).sin() + (1.7 * i as f32).cos()) * 0.3);
    Tensor::from_vec(values.collect::<Vec<_>>(), (rows, columns), &Device::Cpu).unwrap()
}

struct Adapted {
    linear: Linear,
    a: Var,
    b: Var,
}

fn adapted(matrix: Matrix) -> Adapted {
    let (output, input) = matrix.dims().unwrap();
    let (a, b) = (Var::from_tensor(&wave(4, input, 1.0)).unwrap(), Var::from_tensor(&wave(output, 4, 2.0)).unwrap());
    let mut linear = Linear::from_parts("test", matrix, None);
    linear.adapt(Adapter { a: a.as_tensor().clone(), b: b.as_tensor().clone(), scale: 0.5, dropout: 0.0 }).unwrap();
    Adapted { linear, a, b }
}

/// A loss whose gradient depends on everything.
fn loss(linear: &Linear, below: &Tensor, x: &Tensor) -> Tensor {
    linear.forward(&x.matmul(below).unwrap()).unwrap().tanh().unwrap().sqr().unwrap().sum_all().unwrap()
}

#[test]
fn gradients_on_a_quantized_matrix_are_those_on_its_dequantized_twin_and_finite_differences() {
    for kind in [GgmlDType::Q4K, GgmlDType::Q5K, GgmlDType::Q6K, GgmlDType::Q8_0] {
        let quantized = QTensor::quantize(&wave(16, 256, 0.0), kind).unwrap();
        let twin = quantized.dequantize(&Device::Cpu).unwrap();
        let below = Var::from_tensor(&wave(8, 256, 5.0)).unwrap();
        let x = (wave(3, 8, 3.0) * 0.3).unwrap();
        let (q, d) = (adapted(Matrix::from(quantized)), adapted(Matrix::Dense(twin)));
        let (lq, ld) = (loss(&q.linear, &below, &x), loss(&d.linear, &below, &x));
        let (sq, sd) = (lq.backward().unwrap(), ld.backward().unwrap());
        let values = |t: &Tensor| t.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        for (mine, its) in [(&q.a, &d.a), (&q.b, &d.b), (&below, &below)] {
            assert_eq!(values(sq.get(mine).unwrap()), values(sd.get(its).unwrap()), "{kind:?}");
        }
        let known = [q.a.id(), q.b.id(), below.id(), x.id()];
        assert!(sq.get_ids().all(|id| known.contains(id)), "{kind:?}: something else has a gradient");
        // Central differences, in f32: a coarse step and a coarse bound.
        for (var, at) in [(&q.a, 7), (&q.b, 11), (&below, 300)] {
            let (original, analytic) = (values(var), values(sq.get(var).unwrap())[at]);
            let probe = |delta: f32| {
                let mut moved = original.clone();
                moved[at] += delta;
                var.set(&Tensor::from_vec(moved, var.shape(), &Device::Cpu).unwrap()).unwrap();
                loss(&q.linear, &below, &x).to_scalar::<f32>().unwrap()
            };
            let numeric = (probe(1e-2) - probe(-1e-2)) / 2e-2;
            probe(0.0);
            assert!((numeric - analytic).abs() < 0.02 * analytic.abs().max(0.5), "{kind:?}: {numeric} {analytic}");
        }
    }
}

#[test]
fn the_integer_kernels_agree_with_the_numbers_that_they_stand_for() {
    let x = wave(5, 256, 9.0);
    for kind in [GgmlDType::Q4K, GgmlDType::Q5K, GgmlDType::Q6K, GgmlDType::Q8_0] {
        let quantized = Matrix::from(QTensor::quantize(&wave(32, 256, 0.0), kind).unwrap());
        let exact = Matrix::Dense(quantized.dense(DType::F32).unwrap()).product(&x).unwrap();
        let got = quantized.product(&x).unwrap();
        let scale = exact.abs().unwrap().max_all().unwrap().to_scalar::<f32>().unwrap();
        let error = (got - exact).unwrap().abs().unwrap().max_all().unwrap().to_scalar::<f32>().unwrap() / scale;
        assert!(error < 0.02, "{kind:?}: {error}");
    }
}

#[test]
fn a_trained_matrix_still_gets_its_gradient() {
    let w = Var::from_tensor(&wave(4, 6, 0.0)).unwrap();
    let linear = Linear::from_parts("test", Matrix::Dense(w.as_tensor().clone()), None);
    let store = linear.forward(&wave(2, 6, 1.0)).unwrap().sum_all().unwrap().backward().unwrap();
    assert!(store.get(&w).is_some());
}
