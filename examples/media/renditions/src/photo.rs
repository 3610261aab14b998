//! A photo: decoded, scaled down, and encoded again.

use std::io::Cursor;

use image::codecs::jpeg::JpegEncoder;
use image::imageops::FilterType;
use image::metadata::Orientation;
use image::{
    DynamicImage, ImageDecoder, ImageEncoder, ImageError, ImageFormat, ImageReader, ImageResult, Limits, Rgb, RgbImage,
};

use crate::Refused;

/// Of the renditions, from 1 to 100.
const QUALITY: u8 = 82;
/// The most that a decoded pixel takes: four samples of 16 bits, in a PNG.
const PIXEL_BYTES_MAX: u64 = 8;

pub struct Photo {
    /// As it is stored: perhaps lying on its side.
    image: DynamicImage,
    /// How it is shown, by its EXIF.
    orientation: Orientation,
    /// What its colours mean, if that is not sRGB.
    profile: Option<Vec<u8>>,
}

impl Photo {
    /// Decodes a JPEG or a PNG. One of more pixels than these is refused by what its header says.
    pub fn decode(bytes: Vec<u8>, pixels_max: u64) -> Result<Self, Refused> {
        let reader = ImageReader::new(Cursor::new(bytes)).with_guessed_format();
        let mut reader = reader.map_err(|why| refused(why.into()))?;
        if !matches!(reader.format(), Some(ImageFormat::Jpeg | ImageFormat::Png)) {
            return Err(Refused(422, "it is neither a JPEG nor a PNG".into()));
        }
        let mut limits = Limits::no_limits();
        limits.max_alloc = Some(pixels_max * PIXEL_BYTES_MAX);
        reader.limits(limits);
        let mut decoder = reader.into_decoder().map_err(refused)?;
        let (width, height) = decoder.dimensions();
        let pixels = u64::from(width) * u64::from(height);
        if pixels > pixels_max {
            return Err(Refused(413, format!("{width}x{height} are more pixels than {pixels_max}")));
        }
        let orientation = decoder.orientation().map_err(refused)?;
        // One for other than RGB is not true of what is decoded.
        let profile = decoder.icc_profile().map_err(refused)?.filter(|icc| icc.get(16..20) == Some(b"RGB "));
        let image = DynamicImage::from_decoder(decoder).map_err(refused)?;
        Ok(Self { image, orientation, profile })
    }

    /// Width and height in pixels, as it is shown.
    pub fn size(&self) -> (u32, u32) {
        let (width, height) = (self.image.width(), self.image.height());
        match self.orientation {
            Orientation::Rotate90
            | Orientation::Rotate270
            | Orientation::Rotate90FlipH
            | Orientation::Rotate270FlipH => (height, width),
            _ => (width, height),
        }
    }

    /// Makes it so small that its longer side has no more pixels than this. It never grows.
    pub fn shrink(&mut self, side: u32) {
        if self.image.width().max(self.image.height()) > side {
            self.image = self.image.resize(side, side, FilterType::CatmullRom);
        }
    }

    /// Encodes it as it is shown, without its metadata: nobody learns from it where it was taken.
    pub fn jpeg(&self) -> ImageResult<Vec<u8>> {
        let mut shown = DynamicImage::from(flat(&self.image));
        shown.apply_orientation(self.orientation);
        let mut jpeg = Vec::new();
        let mut encoder = JpegEncoder::new_with_quality(&mut jpeg, QUALITY);
        if let Some(profile) = &self.profile {
            // A profile that is too large for a JPEG is not worth the photo.
            let _ = encoder.set_icc_profile(profile.clone());
        }
        shown.write_with_encoder(encoder)?;
        Ok(jpeg)
    }
}

/// On white paper, where it is transparent.
fn flat(image: &DynamicImage) -> RgbImage {
    if !image.color().has_alpha() {
        return image.to_rgb8();
    }
    let image = image.to_rgba8();
    let mut flat = RgbImage::new(image.width(), image.height());
    for (on, pixel) in flat.pixels_mut().zip(image.pixels()) {
        let [red, green, blue, alpha] = pixel.0.map(u32::from);
        *on = Rgb([red, green, blue].map(|value| ((value * alpha + 255 * (255 - alpha) + 127) / 255) as u8));
    }
    flat
}

fn refused(why: ImageError) -> Refused {
    match why {
        ImageError::Limits(why) => Refused(413, why.to_string()),
        // In one line, as it is in the log.
        why => Refused(422, format!("it cannot be decoded: {}", why.to_string().trim_end())),
    }
}
