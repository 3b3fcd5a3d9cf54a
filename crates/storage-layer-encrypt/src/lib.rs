//! Storage layer that encrypts values with authenticated encryption.
