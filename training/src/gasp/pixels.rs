//! Processors of a checkpoint with other limits on the pixels of an image than its own.

use anyhow::{Result, ensure};
use model::Processor;
use serde_json::{Value, json};

/// With the limits (least, most) that `change` makes of the checkpoint's, and without a focal length to scale to.
///
/// # Errors
/// None for a processor that was read from a file.
pub fn limited(processor: &Processor, change: impl FnOnce(u64, u64) -> (u64, u64)) -> Result<Processor> {
    let mut file = serde_json::to_value(processor)?;
    let limit = |newer: &str, older: &str| file[older].as_u64().or_else(|| file["size"][newer].as_u64());
    let (least, most) = (limit("shortest_edge", "min_pixels"), limit("longest_edge", "max_pixels"));
    let (least, most) = change(least.unwrap_or(0), most.unwrap_or(u64::MAX));
    file["size"] = json!({"shortest_edge": least, "longest_edge": most});
    // The older names go before it.
    (file["min_pixels"], file["max_pixels"]) = (Value::Null, Value::Null);
    file["unify_focal_px"] = Value::Null;
    Ok(serde_json::from_value(file)?)
}

/// For images of `size` (width, height), which it leaves as they are; the checkpoint's own without one.
///
/// # Errors
/// Sides that are not whole tokens.
pub fn sized(processor: &Processor, size: Option<(u32, u32)>) -> Result<Processor> {
    let Some((width, height)) = size else { return Ok(processor.clone()) };
    let side = (processor.patch_size * processor.merge_size) as u32;
    ensure!(
        width > 0 && height > 0 && width.is_multiple_of(side) && height.is_multiple_of(side),
        "size: expected multiples of {side} pixels, got {width}x{height}"
    );
    let pixels = u64::from(width) * u64::from(height);
    limited(processor, |_, _| (pixels, pixels))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_of_the_size_asked_for_stay_as_they_are() {
        let own = Processor::with_pixel_limits(4096, 20_480);
        let sized = |size| sized(&own, size).unwrap();
        assert_eq!(sized(None), own);
        assert_eq!(sized(Some((768, 576))).target_size(768, 576).unwrap(), (768, 576));
        assert_eq!(sized(Some((32, 640))).target_size(32, 640).unwrap(), (32, 640));
        let error = super::sized(&own, Some((768, 570))).unwrap_err().to_string();
        assert!(error.contains("768x570"), "{error}");
    }

    #[test]
    fn limits_are_read_under_both_names() {
        let own = Processor::with_pixel_limits(4096, 20_480);
        assert_eq!(limited(&own, |least, most| (least, most)).unwrap(), own);
        let mut older = serde_json::to_value(&own).unwrap();
        let fields = older.as_object_mut().unwrap();
        fields.remove("size");
        fields.insert("min_pixels".to_owned(), json!(2048));
        fields.insert("max_pixels".to_owned(), json!(8192));
        fields.insert("unify_focal_px".to_owned(), json!(500.0));
        let older: Processor = serde_json::from_value(older).unwrap();
        let limited = limited(&older, |least, most| (least / 2, most.min(4096))).unwrap();
        assert_eq!(limited.unify_focal_px, None);
        assert_eq!(limited.target_size(640, 640).unwrap(), (64, 64));
        assert_eq!(limited.target_size(32, 32).unwrap(), (32, 32), "1024 pixels are enough");
    }
}
