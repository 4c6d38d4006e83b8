from flyproxy.edge.pool import Pool

S = 1_000_000_000


def test_the_connection_used_last_is_leased_first() -> None:
    pool: Pool[str] = Pool()
    for name in "abc":
        assert pool.release(name, 0) is None
    assert [pool.lease(), pool.lease(), pool.lease(), pool.lease()] == ["c", "b", "a", None]


def test_a_full_pool_gives_back_the_oldest_to_close() -> None:
    pool: Pool[str] = Pool(idle_max=2)
    assert [pool.release(name, 0) for name in "abc"] == [None, None, "a"]
    assert len(pool) == 2


def test_a_connection_that_died_while_idle_is_never_leased() -> None:
    pool: Pool[str] = Pool()
    pool.release("a", 0)
    pool.release("b", 0)
    pool.remove("b")
    pool.remove("never there")
    assert pool.lease() == "a"


def test_only_what_was_idle_for_too_long_expires() -> None:
    pool: Pool[str] = Pool(idle_s=4)
    pool.release("old", 0)
    pool.release("young", 3 * S)
    assert pool.expired(4 * S - 1) == []
    assert pool.expired(4 * S) == ["old"]
    assert pool.lease() == "young"


def test_a_closed_pool_keeps_nothing() -> None:
    pool: Pool[str] = Pool()
    pool.release("a", 0)
    assert pool.close() == ["a"]
    assert pool.release("b", 0) == "b"
    assert repr(pool) == "<Pool 0 idle, closed>"
