//! AES-CBC with PKCS#7 padding, written as hexadecimal digits: the cipher under both methods.

use aes::cipher::block_padding::{Padding, Pkcs7};
use aes::cipher::consts::U16;
use aes::cipher::{
    BlockCipherDecrypt, BlockCipherEncrypt, BlockModeDecrypt, BlockModeEncrypt, BlockSizeUser, InnerIvInit,
};

pub(super) const BLOCK_BYTES: usize = 16;

/// Appends the ciphertext of `value` to `out`, two lowercase digits a byte, without a buffer between.
pub(super) fn encrypt_to_hex<C>(cipher: &C, iv: [u8; BLOCK_BYTES], value: &[u8], out: &mut Vec<u8>)
where
    C: BlockCipherEncrypt + BlockSizeUser<BlockSize = U16>,
{
    let mut cbc = cbc::Encryptor::inner_iv_init(cipher, &iv.into());
    let (blocks, rest) = value.as_chunks::<BLOCK_BYTES>();
    let mut last = [0; BLOCK_BYTES];
    last[..rest.len()].copy_from_slice(rest);
    Pkcs7::raw_pad(&mut last, rest.len());
    out.reserve((blocks.len() + 1) * BLOCK_BYTES * 2);
    for block in blocks.iter().chain([&last]) {
        let mut block = (*block).into();
        cbc.encrypt_block(&mut block);
        push_hex(block.into(), out);
    }
}

/// The plaintext, unless the length or the padding is wrong.
pub(super) fn decrypt<C>(cipher: &C, iv: [u8; BLOCK_BYTES], ciphertext: &[u8]) -> Option<Vec<u8>>
where
    C: BlockCipherDecrypt + BlockSizeUser<BlockSize = U16>,
{
    cbc::Decryptor::inner_iv_init(cipher, &iv.into()).decrypt_padded_vec::<Pkcs7>(ciphertext).ok()
}

/// Appends a block as 32 lowercase hexadecimal digits. They are computed, because all of a block at once is faster than
/// one after the other from a table.
pub(super) fn push_hex(block: [u8; BLOCK_BYTES], out: &mut Vec<u8>) {
    let digit = |value: u8| value + if value < 10 { b'0' } else { b'a' - 10 };
    let mut digits = [0; BLOCK_BYTES * 2];
    for (pair, byte) in digits.as_chunks_mut::<2>().0.iter_mut().zip(block) {
        *pair = [digit(byte >> 4), digit(byte & 15)];
    }
    out.extend_from_slice(&digits);
}
