//! The policy file: its shape, its schema, its errors.
