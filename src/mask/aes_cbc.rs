//! AES-CBC with PKCS#7 padding, written as hexadecimal digits: the cipher under both methods.

use aes::cipher::block_padding::{Padding, Pkcs7};
use aes::cipher::consts::U16;
use aes::cipher::{
    Block, BlockCipherDecrypt, BlockCipherEncrypt, BlockModeDecrypt, BlockModeEncrypt, BlockSizeUser, InnerIvInit,
};

pub(super) const BLOCK_BYTES: usize = 16;
/// Blocks a call. The cipher prepares its keys for each call, which with VAES takes longer than to encrypt a block.
const BLOCKS_TOGETHER: usize = 8;

/// Appends the ciphertext of `value` to `out`, two lowercase digits a byte.
pub(super) fn encrypt_to_hex<C>(cipher: &C, iv: [u8; BLOCK_BYTES], value: &[u8], out: &mut Vec<u8>)
where
    C: BlockCipherEncrypt + BlockSizeUser<BlockSize = U16>,
{
    let mut cbc = cbc::Encryptor::inner_iv_init(cipher, &iv.into());
    let (whole, rest) = value.as_chunks::<BLOCK_BYTES>();
    let mut last = [0; BLOCK_BYTES];
    last[..rest.len()].copy_from_slice(rest);
    Pkcs7::raw_pad(&mut last, rest.len());
    out.reserve((whole.len() + 1) * BLOCK_BYTES * 2);
    let mut remaining = whole.iter().chain([&last]);
    loop {
        let mut blocks = [Block::<C>::default(); BLOCKS_TOGETHER];
        let filled = blocks.iter_mut().zip(remaining.by_ref()).map(|(block, plain)| *block = (*plain).into()).count();
        if filled == 0 {
            return;
        }
        cbc.encrypt_blocks(&mut blocks[..filled]);
        blocks[..filled].iter().for_each(|block| push_hex((*block).into(), out));
    }
}

/// The number of digits for a value of this number of bytes. Padding adds one byte at least.
pub(super) const fn text_length(bytes: usize) -> usize {
    (bytes / BLOCK_BYTES + 1) * BLOCK_BYTES * 2
}

/// The plaintext, unless the length or the padding is wrong.
pub(super) fn decrypt<C>(cipher: &C, iv: [u8; BLOCK_BYTES], ciphertext: &[u8]) -> Option<Vec<u8>>
where
    C: BlockCipherDecrypt + BlockSizeUser<BlockSize = U16>,
{
    cbc::Decryptor::inner_iv_init(cipher, &iv.into()).decrypt_padded_vec::<Pkcs7>(ciphertext).ok()
}

/// Appends a block as 32 lowercase hexadecimal digits. They are computed: all digits of a block at once are faster than
/// one after the other from a table.
pub(super) fn push_hex(block: [u8; BLOCK_BYTES], out: &mut Vec<u8>) {
    let digit = |value: u8| value + if value < 10 { b'0' } else { b'a' - 10 };
    let mut digits = [0; BLOCK_BYTES * 2];
    for (pair, byte) in digits.as_chunks_mut::<2>().0.iter_mut().zip(block) {
        *pair = [digit(byte >> 4), digit(byte & 15)];
    }
    out.extend_from_slice(&digits);
}

#[cfg(test)]
mod tests {
    use aes::Aes128Enc;
    use aes::cipher::KeyInit;

    use super::*;

    /// Longer values are encrypted some blocks at a time; the padded mode of the cbc crate takes them whole.
    #[test]
    fn values_of_any_length_are_encrypted_as_one() {
        let (cipher, iv) = (Aes128Enc::new(b"Sixteen byte key".into()), *b"InitializationVe");
        let value: Vec<u8> = (0..=255).cycle().take(3 * BLOCKS_TOGETHER * BLOCK_BYTES).collect();
        for length in 0..=value.len() {
            let mut hexadecimal = Vec::new();
            encrypt_to_hex(&cipher, iv, &value[..length], &mut hexadecimal);
            let whole =
                cbc::Encryptor::inner_iv_init(&cipher, &iv.into()).encrypt_padded_vec::<Pkcs7>(&value[..length]);
            assert_eq!(String::from_utf8(hexadecimal).unwrap(), hex::encode(whole), "{length} bytes");
        }
    }
}
