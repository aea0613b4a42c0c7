//! The vocabulary the operator and the instance manager share.
