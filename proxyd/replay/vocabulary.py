"""The words that an anonymized record keeps: names and values of the protocols, and words that identify an error.

Everything else becomes filler (`proxyd.replay.anonymizer`). The lists are explicit, so that what survives can be read
here; a new field or value of a protocol is added when a transcript needs it.
"""

from __future__ import annotations

__all__ = ["ERROR_WORDS", "PROTOCOL_WORDS"]


def _words(*texts: str) -> frozenset[str]:
    return frozenset(word for text in texts for word in text.split())


#: Keys, and values of keys whose values are enumerated.
PROTOCOL_WORDS = _words(
    # Anthropic Messages: requests
    """
    allowed_callers any assistant auto base64 budget_tokens cache_control citations cited_text clear_at content
    context context_management custom data default_config defer_loading description disable_parallel_tool_use
    eager_input_streaming edits effort enabled ephemeral file_id format id image inference_geo input
    input_examples input_schema is_error json_schema keep max_tokens max_uses mcp_servers media_type messages
    metadata model name output_config output_format role safeguards schema service_tier signature source speed
    stop_sequences stream strict system task_budget temperature text thinking title tool tool_choice tool_name
    tool_use_id tools top_k top_p ttl type url user user_id user_profile_id value adaptive between_tools
    clear_thinking clear_thinking_20251015 clear_tool_uses_20250919 compaction disabled high low max medium
    minimal none omitted required standard_only summarized xhigh document container_upload fallback fallbacks
    file mcp_tool_result mcp_tool_use redacted_thinking search_result server_tool_use tool_addition
    tool_definition tool_reference tool_references tool_removal tool_result tool_use web_search_result
    web_search_tool_result web_search_tool_result_error web_fetch_result web_fetch_tool_result
    code_execution_result code_execution_tool_result application/json application/pdf image/gif image/jpeg
    image/png image/tiff image/webp text/plain
    """,
    # Anthropic Messages: responses
    """
    cache_creation cache_creation_input_tokens cache_read_input_tokens caller category container content_block
    content_block_delta content_block_start content_block_stop delta diagnostics error event explanation
    fallback_credit_token index input_json_delta input_tokens message message_delta message_start message_stop
    output_tokens output_tokens_details partial_json ping server_name signature_delta stderr stdout stop_details
    stop_reason stop_sequence text_delta thinking_delta thinking_tokens usage end_turn
    model_context_window_exceeded pause_turn refusal api_error authentication_error billing_error conflict_error
    invalid_request_error not_found_error overloaded_error permission_error rate_limit_error request_too_large
    timeout_error
    """,
    # OpenAI Chat Completions: requests
    """
    arguments audio chat_template_kwargs detail developer enable_thinking extra_body extra_content file_data
    filename function function_call functions google guided_json image_url include_usage input_audio json_object
    max_completion_tokens parallel_tool_calls parameters prompt_cache_key prompt_mode reasoning reasoning_effort
    response_format safety_identifier stop stream_options thinking_budget tool_call_id tool_calls tool_stream
    verbosity chat_template_kwargs.enable_thinking chat_template_kwargs.reasoning_effort
    chat_template_kwargs.thinking output_config.effort output_config.format reasoning.effort reasoning.enabled
    thinking.type
    """,
    # OpenAI Chat Completions: responses
    """
    base_resp cached_tokens cache_write_tokens chat.completion chat.completion.chunk choices code completion
    completion_tokens completion_tokens_details create_time details error_code error_message error_msg errors
    aborted blocklist canceled cancelled complete completed content_filtered eos_token error_limit error_toxic
    failed guardrail_intervened image_prohibited_content image_recitation image_safety incomplete internal_error
    malformed_function_call MALFORMED_FUNCTION_CALL malformed_model_output malformed_response malformed_tool_use
    max_context max_len max_length max_output_tokens missing_thought_signature overloaded prohibited_content
    recitation repetition spii time_limit timeout token_limit too_many_tool_calls tool_call unexpected_tool_call
    user_cancel
    finish_reason http_code images index_id innererror limit loc matched_stop msg n_ctx n_prompt_tokens
    native_finish_reason object param prompt prompt_cache_hit_tokens prompt_tokens prompt_tokens_details
    provider_name raw reason reasoning_content reasoning_details reasoning_tokens status status_code status_msg
    statusCode summary text_completion thought thought_signature thread tokens total_tokens transcript x_groq
    args body data exhausted header kv_cache_evicted output_text result response throttlingException
    cot_id cot_summary encrypted_content encrypted_reasoning extra_fields provider_specific_fields
    reasoning_encrypted_content reasoning_opaque reasoning_signature reasoning_text redacted_thinking
    thinking_blocks thinking_signature thoughtSignature thought_signatures vertex
    reasoning.encrypted reasoning.summary reasoning.text anthropic-claude-v1 openai-responses-v1
    MiniMax-response-v1 abort content_filter data_inspection_failed eos error_finish function_calls
    insufficient_system_resource length MAX_TOKENS model_length network_error repetition_truncation safety
    sensitive tool_use_failed
    """,
    # OpenAI Responses
    """
    action annotation annotation_index annotations call_id commentary content_filters content_index created_at
    end_index final_answer function_call_output in_progress include include_obfuscation incomplete_details
    input_file input_image input_text input_tokens_details instructions item item_id keepalive logprob logprobs
    obfuscation output output_index part phase previous_response_id prompt_cache_breakpoint queued
    reasoning.encrypted_content refusal search sequence_number source_type start_index store summary_index
    summary_text truncation url_citation web_search_call
    response.cancelled response.completed response.content_part.added response.content_part.done
    response.created response.done response.failed response.function_call_arguments.delta
    response.function_call_arguments.done response.in_progress response.incomplete response.output_item.added
    response.output_item.done response.output_text.annotation.added response.output_text.delta
    response.output_text.done response.queued response.reasoning_part.added response.reasoning_part.done
    response.reasoning_summary_part.added response.reasoning_summary_part.done
    response.reasoning_summary_text.delta response.reasoning_summary_text.done response.reasoning_text.delta
    response.reasoning_text.done response.refusal.delta response.refusal.done
    response.web_search_call.completed response.web_search_call.in_progress response.web_search_call.searching
    """,
    # Gemini
    """
    allowedFunctionNames ANY AUTO NONE args avgLogprobs blockReason blockReasonMessage blocked cachedContent
    cachedContentTokenCount candidates candidatesTokenCount candidatesTokensDetails citationMetadata
    citationSources codeExecutionResult contents createTime executableCode fileData fileUri finishMessage
    finishReason functionCall functionCallingConfig functionDeclarations functionResponse generationConfig
    groundingMetadata includeThoughts inlineData LANGUAGE language maxOutputTokens mimeType modality model
    modelStatus modelVersion outcome parametersJsonSchema parts probability promptFeedback promptTokenCount
    promptTokensDetails propertyOrdering quotaId quotaMetric quotaValue responseId responseJsonSchema
    responseMimeType responseSchema retryDelay safetyRatings safetySettings stopSequences systemInstruction
    thinkingBudget thinkingConfig thinkingLevel thoughtsTokenCount tokenCount toolConfig
    toolUsePromptTokenCount topK topP totalTokenCount usageMetadata violations webSearchQueries TEXT
    STOP SAFETY RECITATION BLOCKLIST PROHIBITED_CONTENT SPII OTHER IMAGE_SAFETY IMAGE_PROHIBITED_CONTENT
    IMAGE_OTHER NO_IMAGE IMAGE_RECITATION UNEXPECTED_TOOL_CALL TOO_MANY_TOOL_CALLS MISSING_THOUGHT_SIGNATURE
    MALFORMED_RESPONSE ESCALATION MODEL_ARMOR JAILBREAK FINISH_REASON_UNSPECIFIED BLOCK_REASON_UNSPECIFIED
    INTERNAL UNAVAILABLE RESOURCE_EXHAUSTED DEADLINE_EXCEEDED NOT_FOUND FAILED_PRECONDITION PERMISSION_DENIED
    UNAUTHENTICATED
    """,
    # Error codes of vendors
    """
    accountoverdueerror api_key_invalid backend_error badrequesterror BadRequestError AccountOverdueError
    billing_hard_limit_reached content_policy_violation context_length_exceeded datainspectionfailed
    deadline_exceeded engine_overloaded_error exceed_context_size_error exceeded_current_quota_error
    failed_precondition image_parse_error insufficient_balance insufficient_credits insufficient_quota
    insufficient_user_quota internal_server_error INVALID_ARGUMENT invalid_api_key invalid_argument
    invalid_authentication_error invalid_base64_image invalid_image_format model_not_exist model_not_found
    model_overloaded not_found permission_denied rate_limit_exceeded rate_limited resource_exhausted
    ResponsibleAIPolicyViolation sensitivecontentdetected server_error server_overloaded service_unavailable
    throttlingException Throttling.RateQuota InternalError.Algo Forbidden too_many_requests unauthenticated
    unavailable usage_limit_reached unknown_tool bad_request bio_policy data_residency_mismatch
    invalid_encrypted_content invalid_image invalid_image_url invalid_prompt misalignment_policy_violation
    server_is_overloaded slow_down vector_store_timeout InternalServerError
    """,
    # JSON Schema
    """
    additionalItems additionalProperties allOf anyOf array boolean const contains default definition definitions
    dependentRequired dependentSchemas deprecated else enum examples exclusiveMaximum exclusiveMinimum if int32
    int64 integer items maxContains maxItems maxLength maxProperties maximum minContains minItems minLength
    minProperties minimum multipleOf not null nullable number oneOf pattern patternProperties prefixItems
    properties propertyNames readOnly reference string then unevaluatedItems unevaluatedProperties uniqueItems
    date-time uri writeOnly float double
    """,
)

#: Words, in lower case, of error messages: those by which the causes of errors are distinguished.
ERROR_WORDS = _words(
    """
    a about above abort access account accountoverdueerror additionalproperties after again allocationquota
    allowed alternate alternation an and answered any anyof api are argument arguments array arrearage as at
    authentication auto available bad badrequesterror balance base be before beginning behind below best beyond
    big bigger billing block blocked body budget but by byte bytes cache call called calls can cannot capacity
    change character characters chars chat choice choices chunk chunks code compatible complete completion
    compress compressed const contains content contents context contexts control conversation conversion could
    count credits ctx current currently daily data datainspectionfailed day deadline decode decrease default
    denied deprecated depth detail details developer dimension dimensions disabled does doesn due duration
    effort efforts enable enabled endpoint endpoints engine enough enter entity enum equal error errors exceed
    exceeded exceeding exceeds excess excessive execeeds exhausted exist exists expected extra failed false few
    fewer field file files filter filtering find first fit fits flavored for forced format found from full
    function funds generate generated generation given good got grammar greater had happened hard has have
    height high history hour hours however id identifier identify image images in inappropriate include
    including incompatible incorrect input inputs inspection insufficient instead int integer internal invalid
    invalidapikey invalidendpointormodel is issue issues it items json keep key keys kwargs large larger last
    leading least length lengths lengthy less limit limited limits line lines list load loaded loading loc long
    longer low lower main make management mandatory many max maximum may mb media medium memory message messages
    metadata min minimal minimum minute minutes missing model modelnotopen models month monthly more most ms msg
    much multimodal multiple must name named new next no none not notfound nothing null number object of on one
    oneof only open operation option options or order org other out output over overflow overflowed overflowing
    overflows overloaded overlong overrun oversized own page pages parallel param parameter parameters parse
    parsed part parts passed payload pdf per permission permitted pixel pixels please policy position
    precondition prefix problem process project prompt prompts properties property propertynames provide
    provided provider query quota range rate ratequota raw reached read reason reasoning receive received reduce
    reduced reference refusal refused rejected remove replace reported request requested
    requestratelimitexceeded requests require required requires resource response responses resulted retry
    returned risk role roles room router safety sampling say saying says schema second seconds see send
    sensitive sensitivecontentdetected sent sequence sequences server serveroverloaded service session set
    setting settings shorten shortened shorter should since size sizes slot slots small smaller smart space
    specified speed standing start started starting status statuscode stop stopped store stream streaming strict
    string strings support supported supports surpass surpassed surpasses system tag tags take tell temperature
    template temporarily text than that the then there thinking this thought throttl throttling
    throttlingexception throughput tier time timed timeout title to together token tokens too tool tools total
    transient tried trim true truncate truncated try trying turn turned turns type unable unauthenticated
    unavailable uncompressed unexpected unknown unprocessable unrecognized unsupported until up upgrade upload
    uploaded upstream url usage use used user using utf valid value values vary very violation vision wait was
    we weekly were when which while whole why width will window windows with within without word words works
    wrong yet you your
    """
)
