//! kvmlet: one service per microVM on Linux KVM.
