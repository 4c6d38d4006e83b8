cpdef bint exchanged(
    object edge, object instance, object status, long long duration_ns, long long instance_ns, object bytes_in,
    object bytes_out, object to_instance, object from_instance,
)
