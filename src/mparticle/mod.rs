//! (room: mparticle)
