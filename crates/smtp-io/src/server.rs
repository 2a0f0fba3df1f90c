//! Listening, and driving the sessions of those who connect.
