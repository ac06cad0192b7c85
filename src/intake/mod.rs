//! Reports that others send us: verified on their raw bytes, parsed leniently, handed on.
