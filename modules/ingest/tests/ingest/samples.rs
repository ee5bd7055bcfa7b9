//! The samples of the demo, which it sends in the form that the tools do.
