//! Fills the cache of images, so that a machine without compiler and network can be given a copy of it.

fn main() {
    orlop_integration::images::fill_cache();
}
