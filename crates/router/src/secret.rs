//! Passwords and API keys: what is kept of them.

use argon2::Argon2;
use argon2::password_hash::{PasswordHasher as _, SaltString};
use data_encoding::BASE64URL_NOPAD;
use rand::RngCore as _;
use sha2::{Digest as _, Sha256};

/// A new API key's secret: 256 random bits, with a prefix by which scanners of source code know it.
pub(crate) fn generate() -> String {
    let mut bytes = [0; 32];
    rand::rng().fill_bytes(&mut bytes);
    format!("phk_{}", BASE64URL_NOPAD.encode(&bytes))
}

/// What the directory keeps of an API key: as the secret cannot be guessed, a fast hash is enough.
pub(crate) fn hash(secret: &str) -> [u8; 32] {
    Sha256::digest(secret).into()
}

/// The Argon2id hash of a password in PHC form. Takes some 20 ms of one core and 19 MiB: not for the runtime's threads.
pub(crate) fn hash_password(password: &str) -> Result<String, argon2::password_hash::Error> {
    let mut salt = [0; 16];
    rand::rng().fill_bytes(&mut salt);
    let salt = SaltString::encode_b64(&salt)?;
    Ok(Argon2::default().hash_password(password.as_bytes(), &salt)?.to_string())
}
