"""What pages and cards call the metrics of a report, each with its definition in a line."""

CRITERIA = {
    "f1_macro": ("F1, macro", "mean of the F1 of the symptoms that occur in the split"),
    "f1_micro": ("F1, micro", "one F1 over the labels of all symptoms together"),
    "f1_weighted": ("F1, weighted", "mean of the symptoms' F1, weighted by their support"),
    "macro_pr_auc": ("PR AUC, macro", "mean average precision, without interpolation"),
    "precision_macro": (
        "Precision, macro",
        "mean over the same symptoms: share of the posts predicted to have it that do",
    ),
    "recall_macro": ("Recall, macro", "mean over the same symptoms: share of the posts that have it that are found"),
    "accuracy": ("Subset accuracy", "share of posts whose labels are all correct"),
}
EVIDENCE = {
    "f1": ("Token F1", "mean over pairs with evidence: F1 between the words predicted and the words annotated"),
    "exact_match": (
        "Exact match",
        "share of pairs with evidence whose predicted spans are exactly the annotated ones",
    ),
    "char_f1": ("Character F1", "of characters, pooled over pairs with evidence, against all annotated spans"),
    "char_precision": (
        "Character precision",
        "share of the predicted characters that are annotated; 0 where none is predicted",
    ),
    "char_recall": ("Character recall", "share of the annotated characters that are predicted"),
    "null_span_accuracy": ("No evidence, correct", "share of pairs without evidence for which none is predicted"),
}
CALIBRATION = {
    "brier_macro": ("Brier score, macro", "mean of (probability − label)² over the posts; 0 is best"),
    "ece_macro": (
        "Calibration error, macro",
        "expected calibration error in ten bins of equal width: how far a bin's mean probability is from its share of"
        " posts with the symptom; 0 is best. It is too high in few posts, so it has no interval",
    ),
}
RANKING = {
    "average_precision_macro": (
        "Average precision, macro",
        "of a post's sentences, ranked for a symptom that it shows",
    ),
    "ndcg_at_10_macro": ("nDCG@10, macro", "the same for the ten highest sentences, discounted by rank; 1 is best"),
}
DISCRIMINATION = {
    "roc_auc_macro": (
        "ROC AUC, macro",
        "mean over the symptoms that some posts have and some lack: how often a post with the symptom has the higher"
        " probability, of all pairs of one with it and one without; 0.5 is guessing",
    ),
    "mcc_macro": (
        "MCC, macro",
        "mean of Matthews correlation of decision and label over the same symptoms; from -1 to 1, 0 is guessing",
    ),
}
