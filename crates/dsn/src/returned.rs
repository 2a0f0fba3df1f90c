pub(crate) fn may_travel(_content: &[u8]) -> bool {
    true
}
