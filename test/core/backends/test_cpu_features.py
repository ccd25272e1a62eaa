from vidseg_core.backends.cpu_features import cpu_bf16, cpuinfo, integer_instructions


def test_what_the_processor_can_do_is_what_linux_says():
    flags = set(open("/proc/cpuinfo").read().split())
    assert cpu_bf16() == bool(flags & {"avx512_bf16", "amx_bf16"})
    assert integer_instructions() == bool(flags & {"avx512_vnni", "avx_vnni", "amx_int8"})


def test_entries_of_the_first_processor():
    assert cpuinfo("processor") == "0"
    assert cpuinfo("nothing of the kind") == ""
