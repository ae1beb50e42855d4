//! What a device's thread serves with.

use super::orders::Orders;
use std::fmt;

/// Queues, and all that a thread needs to serve them. Whenever none of these methods runs it is at a chain boundary:
/// each chain that it took is answered, put back, or known to be in flight.
pub trait Server: Send + 'static {
    /// Why it cannot go on before the device is reset.
    type Failure: fmt::Display;

    /// Serves as long as the order is to work, and comes back soon after it is another; nothing of guest memory changes
    /// then any more. It is called again when the order is to work again.
    ///
    /// # Errors
    /// When the driver broke the rules, or the host failed.
    fn serve(&mut self, orders: &Orders) -> Result<(), Self::Failure>;

    /// Brings what is in flight to its end and answers it, as long as the order is to sleep. Returns whether nothing is
    /// in flight any more.
    ///
    /// # Errors
    /// As [`serve`](Self::serve).
    fn finish(&mut self, _orders: &Orders) -> Result<bool, Self::Failure> {
        Ok(true)
    }

    /// Drops what is in flight, unanswered. When it returns, the host's kernel works on nothing of it.
    fn abandon(&mut self) {}
}
