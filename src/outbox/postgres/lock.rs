//! Locks that no panic spoils.

use std::sync::{Mutex, MutexGuard, PoisonError};

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What is behind these locks is changed in steps that do not panic half-way.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
