//! ListTransactions, versions 0–2: the transactional ids that a filter admits.

use fleuve_coordinator::Now;
use fleuve_coordinator::transaction::ListFilter;
use fleuve_metadata::image::{AclOperation, AclResourceType};
use fleuve_protocol::messages::list_transactions_request::ListTransactionsRequest;
use fleuve_protocol::messages::list_transactions_response::{
    ListTransactionsResponse, TransactionState,
};
use fleuve_protocol::{ErrorCode, Str};

use super::errors;
use crate::request::{Context, Outcome};

pub(crate) fn handle(
    context: &Context,
    request: ListTransactionsRequest,
) -> Outcome<ListTransactionsResponse> {
    let failure = |code: ErrorCode| {
        Outcome::Now(ListTransactionsResponse { error_code: code.code(), ..Default::default() })
    };
    let filter = ListFilter::new(
        &request.state_filters,
        &request.producer_id_filters,
        request.duration_filter,
        request.transactional_id_pattern.as_deref(),
    );
    let filter = match filter {
        Ok(filter) => filter,
        Err(error) => {
            tracing::debug!(%error, "transactions are not listed");
            return failure(ErrorCode::InvalidRegularExpression);
        }
    };
    let now = Now::read(&*context.node.clock);
    let mut transaction_states = Vec::new();
    for shard in context.node.transactions.shards() {
        match shard.read(|machine| machine.list(now, &filter)) {
            Ok(listings) => {
                let visible = listings.into_iter().filter(|listing| {
                    let id = &listing.transactional_id;
                    context.may(AclOperation::Describe, AclResourceType::TransactionalId, id)
                });
                transaction_states.extend(visible.map(|listing| TransactionState {
                    transactional_id: listing.transactional_id,
                    producer_id: listing.producer_id.0,
                    transaction_state: Str::from(listing.state.name()),
                }));
            }
            Err(error) => return failure(errors::transaction(error)),
        }
    }
    Outcome::Now(ListTransactionsResponse {
        unknown_state_filters: filter.unknown_states().to_vec(),
        transaction_states,
        ..Default::default()
    })
}
