//! Each kernel against candle's composite, forward and backward.

use super::*;
use candle_core::Var;

/// Both directions against candle's composites.
fn check(fused: impl Fn(&Tensor) -> Result<Tensor>, composite: impl Fn(&Tensor) -> Result<Tensor>) -> Result<()> {
    let x = Var::randn(0f32, 3.0, (4, 5, 33), &Device::Cpu)?;
    let weight = Tensor::randn(0f32, 1.0, (4, 5, 33), &Device::Cpu)?;
    let run = |f: &dyn Fn(&Tensor) -> Result<Tensor>| -> Result<(Tensor, Tensor)> {
        let y = f(x.as_tensor())?;
        let grads = (&y * &weight)?.sum_all()?.backward()?;
        let Some(grad) = grads.get(&x) else { bail!("no gradient") };
        Ok((y, grad.clone()))
    };
    let ((a, da), (b, db)) = (run(&fused)?, run(&composite)?);
    for (got, expected) in [(a, b), (da, db)] {
        let error = (got - expected)?.abs()?.max_all()?.to_scalar::<f32>()?;
        assert!(error < 2e-5, "{error}");
    }
    Ok(())
}

#[test]
fn softmax_agrees_with_the_composite() -> Result<()> {
    check(|x| softmax(x, 0.3, false), |x| candle_nn::ops::softmax(&(x * 0.3)?, D::Minus1))
}

#[test]
fn causal_softmax_agrees_with_a_mask() -> Result<()> {
    let mask: Vec<f32> = (0..5 * 33).map(|i| if i % 33 > 28 + i / 33 { f32::NEG_INFINITY } else { 0.0 }).collect();
    let mask = Tensor::from_vec(mask, (5, 33), &Device::Cpu)?;
    check(|x| softmax(x, 0.5, true), |x| candle_nn::ops::softmax(&(x * 0.5)?.broadcast_add(&mask)?, D::Minus1))
}

/// What other devices and types take, against the kernel: as many queries as tokens, and fewer.
#[test]
fn causal_softmax_without_a_kernel_agrees_with_the_kernel() -> Result<()> {
    for (t, s) in [(5, 33), (7, 7), (2, 2), (3, 40)] {
        let x = Tensor::randn(0f32, 3.0, (2, t, s), &Device::Cpu)?;
        let other = softmax(&x.to_dtype(DType::F64)?, 0.5, true)?.to_dtype(DType::F32)?;
        let error = (other - softmax(&x, 0.5, true)?)?.abs()?.max_all()?.to_scalar::<f32>()?;
        assert!(error < 1e-5, "{t} of {s}: {error}");
    }
    Ok(())
}

#[test]
fn rms_norm_agrees_with_the_composite() -> Result<()> {
    let w = Tensor::rand(0.5f32, 1.5, 33, &Device::Cpu)?;
    check(|x| rms_norm(x, &w, 1e-6), |x| candle_nn::ops::rms_norm_slow(x, &w, 1e-6))
}

#[test]
fn layer_norm_agrees_with_the_composite() -> Result<()> {
    let w = Tensor::rand(0.5f32, 1.5, 33, &Device::Cpu)?;
    let b = Tensor::rand(-0.5f32, 0.5, 33, &Device::Cpu)?;
    check(|x| layer_norm(x, &w, &b, 1e-6), |x| candle_nn::ops::layer_norm_slow(x, &w, &b, 1e-6))
}

#[test]
fn swiglu_agrees_with_the_composite() -> Result<()> {
    let other = Tensor::randn(0f32, 1.0, (4, 5, 33), &Device::Cpu)?;
    check(|x| swiglu(x, &other), |x| x.silu()? * &other)?;
    check(|x| swiglu(&other, x), |x| other.silu()? * x)
}

#[test]
fn gelu_agrees_with_the_composite() -> Result<()> {
    check(gelu, |x| {
        let u = ((x + (x.powf(3.0)? * 0.044715)?)? * (2.0 / std::f64::consts::PI).sqrt())?;
        (x * 0.5)? * (u.tanh()? + 1.0)?
    })
}

#[test]
fn rope_agrees_with_candle_in_value_and_with_its_transpose_in_gradient() -> Result<()> {
    let x = Var::randn(0f32, 1.0, (2, 3, 5, 8), &Device::Cpu)?;
    let angles = Tensor::rand(-3f32, 3.0, (2, 5, 4), &Device::Cpu)?;
    let (cos, sin) = (angles.cos()?, angles.sin()?);
    let y = rope(x.as_tensor(), &cos, &sin)?;
    let far = |a: &Tensor, b: &Tensor| (a - b)?.abs()?.max_all()?.to_scalar::<f32>();
    assert!(far(&y, &candle_nn::rotary_emb::rope(x.as_tensor(), &cos, &sin)?)? < 1e-6);
    // sum(y^2) / 2 has the gradient R^T R x = x.
    let grads = (y.sqr()?.sum_all()? * 0.5)?.backward()?;
    let Some(grad) = grads.get(&x) else { bail!("no gradient") };
    assert!(far(grad, x.as_tensor())? < 1e-5);
    Ok(())
}

/// Gradients of norms whose weights are trained: there the product is an operation of its own.
#[test]
fn norms_give_trained_weights_their_gradients() -> Result<()> {
    let x = Var::randn(0f32, 3.0, (5, 33), &Device::Cpu)?;
    let (w, b) = (Var::rand(0.5f32, 1.5, 33, &Device::Cpu)?, Var::rand(-0.5f32, 0.5, 33, &Device::Cpu)?);
    let pairs = [
        (rms_norm(&x, &w, 1e-6)?, candle_nn::ops::rms_norm_slow(&x, &w, 1e-6)?),
        (layer_norm(&x, &w, &b, 1e-6)?, candle_nn::ops::layer_norm_slow(&x, &w, &b, 1e-6)?),
    ];
    for (fused, composite) in pairs {
        let (got, expected) = (fused.sqr()?.sum_all()?.backward()?, composite.sqr()?.sum_all()?.backward()?);
        for var in [&x, &w, &b] {
            match (got.get(var), expected.get(var)) {
                (Some(got), Some(expected)) => {
                    let error = (got - expected)?.abs()?.max_all()?.to_scalar::<f32>()?;
                    assert!(error < 1e-3, "{error}");
                }
                (got, expected) => assert!(got.is_none() && expected.is_none()),
            }
        }
    }
    Ok(())
}

/// Tensors large enough to be shared out among threads: each row as it is alone.
#[test]
fn large_tensors_are_small_ones_under_one_another() -> Result<()> {
    let (rows, width) = (96, 1031);
    let tensor = || Tensor::randn(0f32, 2.0, (rows, width), &Device::Cpu);
    let (x, y, w, b) = (tensor()?, tensor()?, tensor()?.get(0)?, tensor()?.get(1)?);
    assert!(rows * width > 2 * SHARE);
    type Kernel<'a> = &'a dyn Fn(&Tensor, &Tensor) -> Result<Tensor>;
    let kernels: [Kernel<'_>; 5] = [
        &|x, _| softmax(x, 0.3, false),
        &|x, _| rms_norm(x, &w, 1e-6),
        &|x, _| layer_norm(x, &w, &b, 1e-6),
        &|x, _| gelu(x),
        &|x, y| swiglu(x, y),
    ];
    // What comes out, and the gradients of both inputs.
    let both = |f: Kernel<'_>, x: &Tensor, y: &Tensor| -> Result<Vec<Tensor>> {
        let (x, y) = (Var::from_tensor(x)?, Var::from_tensor(y)?);
        let out = f(x.as_tensor(), y.as_tensor())?;
        let grads = out.sqr()?.sum_all()?.backward()?;
        Ok([Some(out.detach()), grads.get(&x).cloned(), grads.get(&y).cloned()].into_iter().flatten().collect())
    };
    for kernel in kernels {
        let whole = both(kernel, &x, &y)?;
        for row in [0, 40, rows - 1] {
            let alone = both(kernel, &x.narrow(0, row, 1)?, &y.narrow(0, row, 1)?)?;
            assert_eq!(whole.len(), alone.len());
            for (whole, alone) in whole.iter().zip(&alone) {
                assert_eq!(whole.narrow(0, row, 1)?.to_vec2::<f32>()?, alone.to_vec2::<f32>()?);
            }
        }
    }
    Ok(())
}

#[test]
fn exp_is_close_over_its_range() {
    for i in 0..8700 {
        let x = -i as f32 * 0.01;
        let (got, expected) = (exp(x), x.exp());
        assert!((got - expected).abs() <= 1e-5 * expected.max(f32::MIN_POSITIVE), "{x}: {got} {expected}");
    }
}
