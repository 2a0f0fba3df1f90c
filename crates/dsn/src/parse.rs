pub(crate) fn report(_bytes: &[u8]) -> Result<crate::Report, crate::ParseError> {
    Err(crate::ParseError::NotAReport)
}
