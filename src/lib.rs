//! Peristyle: an embedded storage engine.
