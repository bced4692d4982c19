//! podman with storage of its own, by the flags that work as root and as an ordinary user.
